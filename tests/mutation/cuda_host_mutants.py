"""Mutants of the host code around the kernels, of NCCL, and of the layer that works on two streams."""

from mutant import Mutant

BACKEND = "kernels_cuda_backend_test_plain_seq_lazy"
FAULTS = "kernels_cuda_faults_test_plain_seq_lazy"
DENSE = "kernels_cuda_dense_gemm_test_plain_seq_lazy"
GEMM = "kernels_cuda_gemm_test_plain_seq_lazy"
PACKED = "kernels_cuda_packed_matrix_test_plain_seq_lazy"
ATTENTION = "kernels_cuda_attention_test_plain_random_random"
ROW_OPS = "kernels_cuda_row_ops_test_plain_random_random"
NCCL_2 = "nccl_communicator_test_plain_seq_lazy_n2"
NCCL_4 = "nccl_communicator_test_plain_seq_lazy_n4"
NCCL_FAILURES = "nccl_failure_test"
TRAINING_ELEMENTWISE = "kernels_cuda_training_elementwise_test_plain_seq_lazy"
TRAINING_ATTENTION = "kernels_cuda_training_attention_test_plain_random_random"
GPU = "cuda_rank_test_plain_seq_lazy_n4"
MOE = "nccl_moe_layer_test_(plain_seq_random|checked_seq_random)_n2"

BACKEND_MUTANTS = [
    Mutant("gemm_groups_kept", "kernels/cuda/gemm.cc", "  groups.num_groups = 0;\n", "", "a second launch repeats the first's groups",
           GEMM, "*AnyNumberOfGroups*"),
    Mutant("gemm_row_alignment", "kernels/cuda/gemm.cc", "% kVectorBytes == 0 &&\n         rows.dim(1)", "% kVectorBytes == 0 ||\n         rows.dim(1)",
           "rows at odd addresses are taken for aligned ones", GEMM, "*RandomShapesMatchTheReference*:*AddressesChangeNothing*"),
    Mutant("plan_partials_overlap", "kernels/cuda/attention_plan.cc", "      num_partials_ += partials;\n", "      num_partials_ = partials;\n",
           "pieces share the place of their partial results", ATTENTION, "*LongSequences*:*MatchesReference*"),
    Mutant("plan_kept", "kernels/cuda/cuda_stream.cc", "if (plan != absl::MakeConstSpan(last_plan_)) {", "if (last_plan_.empty()) {",
           "another attention runs by the first one's plan", ATTENTION, "*MatchesReference*"),
    Mutant("upload_slot_reused", "kernels/cuda/cuda_stream.cc",
           "  OCTET_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(slot.copied.get()),\n"
           "                                   \"cudaEventSynchronize of an upload\"));\n", "",
           "pinned memory is filled again while it is copied from", BACKEND, "*CopiesOfAnySize*"),
    Mutant("upload_event", "kernels/cuda/cuda_stream.cc",
           "    OCTET_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(slot->copied.get(), get()),\n"
           "                                     \"cudaEventRecord of an upload\"));\n", "",
           "the event that guards pinned memory is never recorded", BACKEND, "*CopiesOfAnySize*"),
    Mutant("staging_reused", "kernels/cuda/cuda_memory.cc", "CudaStatus(cudaEventSynchronize(slots_[current_].copied.get()),",
           "CudaStatus(cudaSuccess,", "a staging buffer is given out while it is copied from",
           "kernels_cuda_memory_test_plain_seq_lazy", "*ChunksDoNotOverwrite*"),
    Mutant("synchronize", "kernels/cuda/cuda_stream.cc", "return CudaStatus(cudaStreamSynchronize(get()), \"cudaStreamSynchronize\");",
           "return absl::OkStatus();", "Synchronize does not wait", FAULTS, "*RopeTableIsThere*"),
    Mutant("event_wait", "kernels/cuda/cuda_backend.cc", "CudaStatus(cudaStreamWaitEvent(on->get(), cuda_event->get(), 0),",
           "CudaStatus(on != nullptr && cuda_event != nullptr ? cudaSuccess : cudaErrorUnknown,", "Wait does not make the stream wait", BACKEND, "*EventsOrderStreams*"),
    Mutant("event_record", "kernels/cuda/cuda_backend.cc", "CudaStatus(cudaEventRecord(cuda_event->get(), on->get()),",
           "CudaStatus(on != nullptr && cuda_event != nullptr ? cudaSuccess : cudaErrorUnknown,", "Record records nothing", BACKEND, "*EventsOrderStreams*"),
    Mutant("rope_table_theta", "kernels/cuda/rope_tables.cc", "params.theta != theta_ || params.head_dim", "params.head_dim",
           "the angles of another theta are used", FAULTS, "*RopeTableFollows*"),
    Mutant("rope_table_wait", "kernels/cuda/rope_tables.cc", "    OCTET_RETURN_IF_ERROR(stream.Synchronize());\n    theta_",
           "    theta_", "another stream may use the table before it is there", FAULTS, "*RopeTable*"),
    Mutant("packed_zero_wait", "kernels/cuda/packed_matrix.cc",
           "        \"cudaMemsetAsync of a packed matrix\"));\n    OCTET_RETURN_IF_ERROR(staging.Finish());\n",
           "        \"cudaMemsetAsync of a packed matrix\"));\n", "a new matrix is used before it is zero", PACKED, "*IsZero*"),
    Mutant("packed_padding", "kernels/cuda/packed_matrix.cc", "std::fill(target + k, target + ld, To{});", "std::fill(target + ld, target + ld, To{});",
           "what staging held comes into the padding", PACKED),
    Mutant("packed_finish", "kernels/cuda/packed_matrix.cc", "  }\n  return staging.Finish();\n}\n", "  }\n  return absl::OkStatus();\n}\n",
           "PackRows returns while rows are still on their way", PACKED),
    Mutant("dense_unpinned", "kernels/cuda/dense_gemm_lt.cc", "&algorithms_[algorithm],", "algorithm < 0 ? &algorithms_[algorithm] : nullptr,",
           "cuBLASLt chooses an algorithm for each call", DENSE),
    Mutant("dense_rows", "kernels/cuda/dense_gemm_lt.cc", "  OCTET_RETURN_IF_ERROR(SetRows(num_rows));\n", "  static_cast<void>(num_rows);\n",
           "the product is of as many rows as the heuristic was asked for", DENSE),
    Mutant("dense_zeros", "kernels/cuda/dense_gemm.cc", "    if (bits == RowBits::kUnknown) return nullptr;\n", "",
           "a matrix of zeros decides for its shape", DENSE, "*AMatrixOfZeros*"),
    Mutant("dense_comparison", "kernels/cuda/dense_gemm.cc", "                      rows.size()) != 0) {", "                      4) != 0) {",
           "the examination compares the first number only", DENSE, "ExamineRowBitsTest*"),
    Mutant("dense_alignment", "kernels/cuda/dense_gemm.cc", "!IsAligned(x.data()) || !IsAligned(out.data())", "!IsAligned(x.data())",
           "cuBLASLt gets an address it was not chosen for", DENSE, "*OddAddresses*"),
    Mutant("cache_head_dim", "kernels/cuda/cuda_objects.h", "cache.head_dim > kAttentionMaxHeadDim || cache.head_dim % 2 != 0",
           "cache.head_dim > kAttentionMaxHeadDim", "odd head sizes reach the kernels", BACKEND, "*LimitsOfAttention*"),
]

TRAINING_MUTANTS = [
    Mutant("training_repack_row", "kernels/cuda/cuda_training.cc", "row_begin * packed.ld() *", "row_begin * packed.k() *",
           "rows are written where they would lie without padding", TRAINING_ELEMENTWISE, "*Repack*"),
    Mutant("training_attention_scratch", "kernels/cuda/cuda_training.cc", "on->Scratch(q.dim(0) * group * cache.num_kv_heads",
           "on->Scratch(q.dim(0) * cache.num_kv_heads", "room for one query of each group only",
           "kernels_cuda_training_attention_test_checked_random_random", "*BackwardOfRandomShapes*"),
    Mutant("training_plan_tables", "kernels/cuda/attention_backward_plan.cc", "static_cast<int64_t>(blocks_.size()),", "int64_t{0},",
           "every sequence has the first one's blocks", TRAINING_ATTENTION, "*SequencesInOneCall*"),
]

NCCL_MUTANTS = [
    Mutant("nccl_wrong_peer", "worker/comm/nccl/nccl_group.cc", "ncclInt8, from, comm_, stream),", "ncclInt8, to, comm_, stream),",
           "receives from the rank it sends to", NCCL_4, "*Provenance*"),
    Mutant("nccl_wrong_count", "worker/comm/nccl/nccl_group.cc",
           "ncclSend(send + args.send_offsets[to],\n                                static_cast<size_t>(args.send_bytes[to]),",
           "ncclSend(send + args.send_offsets[to],\n                                static_cast<size_t>(args.recv_bytes[to]),",
           "sends as much as it receives", NCCL_2, "*Provenance*"),
    Mutant("nccl_wrong_place", "worker/comm/nccl/nccl_group.cc", "cudaMemcpyAsync(recv + args.recv_offsets[rank_],",
           "cudaMemcpyAsync(recv + args.send_offsets[rank_],", "the own part lands where it was sent from", NCCL_2, "*Provenance*"),
    Mutant("nccl_no_group", "worker/comm/nccl/nccl_group.cc",
           "  OCTET_RETURN_IF_ERROR(NcclStatus(ncclGroupStart(), \"ncclGroupStart\"));\n", "",
           "sends and receives are not one group", NCCL_2, "*Provenance*"),
    Mutant("nccl_wrong_stream", "worker/comm/nccl/nccl_communicator.cc", "group_.AllToAllV(args, stream);", "group_.AllToAllV(args, nullptr);",
           "the exchange is on another stream than its data", NCCL_2, "*KeepsTheOrder*"),
    Mutant("nccl_not_ready", "worker/comm/nccl/nccl_communicator.cc", "return Await(call, [&] { return group_.Settled(); });\n}",
           "static_cast<void>(call);\n  return absl::OkStatus();\n}", "the communicator is used before it is connected", NCCL_2, "*Provenance*"),
    Mutant("nccl_group_under_way", "worker/comm/nccl/nccl_communicator.cc",
           "  if (status.ok()) status = Await(call, [&] { return group_.Settled(); });\n", "",
           "the event is recorded before the group is on the stream", NCCL_2),
    Mutant("nccl_no_wait", "worker/comm/nccl/nccl_communicator.cc", "recorded.ok() ? Await(call, [&] { return StreamIsPast(); })",
           "recorded.ok() ? absl::OkStatus()", "returns before the GPUs have exchanged anything", NCCL_FAILURES, "*LateGpuEnds*"),
    Mutant("nccl_no_deadline", "worker/comm/nccl/nccl_communicator.cc", "if (absl::Now() - call.start > call.timeout) {",
           "if (call.timeout < absl::ZeroDuration()) {", "the wait for the GPUs has no end", NCCL_FAILURES, "*LateGpuEnds*"),
    Mutant("nccl_own_deadline", "worker/comm/nccl/nccl_communicator.cc", "op.timeout.value_or(options_.timeout)", "options_.timeout",
           "a call's own deadline is not kept", NCCL_FAILURES, "*LateGpuEnds*"),
    Mutant("nccl_no_abort", "worker/comm/nccl/nccl_communicator.cc", "  if (!status.ok()) host_data_->Abort(status);\n  return status;\n}\n\nabsl::Status NcclCommunicator::Meet",
           "  return status;\n}\n\nabsl::Status NcclCommunicator::Meet", "the others are not told of an error", NCCL_FAILURES, "*AsynchronousError*"),
    Mutant("nccl_error_forgotten", "worker/comm/nccl/nccl_communicator.cc", "return poison_ = std::move(status);", "return status;",
           "a failed group goes on", NCCL_FAILURES, "*UnequalSizes*:*AsynchronousError*"),
    Mutant("nccl_sizes_unchecked", "worker/comm/nccl/nccl_communicator.cc", "if (sent == expected) continue;", "if (sent >= 0) continue;",
           "unequal sizes are left to NCCL", NCCL_FAILURES, "*UnequalSizes*"),
    Mutant("nccl_asynchronous_error", "worker/comm/nccl/nccl_communicator.cc", "    OCTET_RETURN_IF_ERROR(group_.Settled().status());\n    return false;",
           "    return false;", "NCCL is not asked for errors while the GPU works", NCCL_FAILURES, "*AsynchronousError*"),
    Mutant("nccl_stream_for_host", "worker/comm/nccl/nccl_communicator.cc", "  if (op.stream != nullptr) {\n    const absl::Status status",
           "  if (false) {\n    const absl::Status status", "a host collective takes device memory", NCCL_FAILURES, "*BadArguments*"),
    Mutant("gpu_before", "worker/device/cuda_rank.cc", "before += communicator.host(other) == host;", "before += communicator.host(other) != host;",
           "ranks of one host open the same GPU", GPU, "*OpensTheGpuOfItsNumber*"),
    Mutant("gpu_failure_kept", "worker/device/cuda_rank.cc", "    host_data->Abort(opened);\n", "",
           "the others are not told that a GPU cannot be opened", GPU, "*AGpuThatCannot*"),
    Mutant("nccl_failure_kept", "worker/comm/nccl/nccl_communicator.cc", "    group->Abort(status);\n", "    static_cast<void>(group);\n",
           "the others are not told that a rank cannot connect", "nccl_faults_test_plain_seq_lazy_n2", "*ncclCommInitRank*"),
    Mutant("gpu_of_rank", "worker/device/cuda_rank.cc", "!= cudaSuccess || visible == 1)", "!= cudaSuccess)",
           "a rank looks for a GPU that its launcher hides", GPU, "*OpensTheOneGpu*"),
]

MOE_MUTANTS = [
    Mutant("moe_dispatched", "worker/moe/moe_layer.cc",
           "  OCTET_RETURN_IF_ERROR(Await(pass, lane.moved, pass.step));\n  pass.clock.AddTo(pass.seconds->dispatch);",
           "  pass.clock.AddTo(pass.seconds->dispatch);", "experts do not wait for the dispatch", MOE, "*f32"),
    Mutant("moe_computed", "worker/moe/moe_layer.cc", "  OCTET_RETURN_IF_ERROR(Await(pass, lane.computed, pass.transfers));\n", "",
           "the combine does not wait for the experts", MOE, "*f32"),
    Mutant("moe_combined", "worker/moe/moe_layer.cc",
           "  OCTET_RETURN_IF_ERROR(Await(pass, lane.moved, pass.step));\n  if (handle.num_tokens > 0) {", "  if (handle.num_tokens > 0) {",
           "outputs are added before they have come home", MOE, "*f32"),
    Mutant("moe_computed_mark", "worker/moe/moe_layer.cc", "  OCTET_RETURN_IF_ERROR(Mark(pass, lane.computed, pass.step));\n", "",
           "the event says that the chunk before is computed", MOE, "*f32"),
    Mutant("moe_one_lane", "worker/moe/moe_layer.cc",
           "  Lane& lane = lanes_[chunk % lanes_.size()];\n  const DispatchHandle& handle = pass.handles[chunk];\n  OCTET_ASSIGN_OR_RETURN(\n      const ConstTensor received,",
           "  Lane& lane = lanes_[0];\n  const DispatchHandle& handle = pass.handles[chunk];\n  OCTET_ASSIGN_OR_RETURN(\n      const ConstTensor received,",
           "all chunks use the first lane's memory", MOE, "*f32"),
    Mutant("moe_chunk_begin", "worker/moe/moe_layer.cc", "ChunkRange(x.rows(), chunk, num_chunks).begin", "ChunkRange(x.rows(), 0, num_chunks).begin",
           "every chunk takes the first one's tokens", MOE, "*f32"),
]

MUTANTS = BACKEND_MUTANTS + TRAINING_MUTANTS + NCCL_MUTANTS + MOE_MUTANTS
