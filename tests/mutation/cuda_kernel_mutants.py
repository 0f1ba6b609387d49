"""Mutants of the device code in kernels/cuda."""

from mutant import Mutant

GEMM = "kernels_cuda_gemm_test_plain_seq_lazy"
GEMM_ASAN = "kernels_cuda_gemm_test_asan_seq_lazy"
GEMM_CHECKED = "kernels_cuda_gemm_test_checked_seq_random"
ATTENTION = "kernels_cuda_attention_test_plain_random_random"
ATTENTION_CHECKED = "kernels_cuda_attention_test_checked_random_random"
ROW_OPS = "kernels_cuda_row_ops_test_plain_random_random"
ROW_OPS_ASAN = "kernels_cuda_row_ops_test_asan_seq_lazy"
ROW_OPS_CHECKED = "kernels_cuda_row_ops_test_checked_random_random"
SAMPLING = "kernels_cuda_sampling_test_plain_seq_lazy"
SAMPLING_CHECKED = "kernels_cuda_sampling_test_checked_random_random"
TRAINING_PRODUCTS = "kernels_cuda_training_products_test_plain_seq_lazy"
TRAINING_PRODUCTS_CHECKED = "kernels_cuda_training_products_test_checked_seq_lazy"
TRAINING_ATTENTION = "kernels_cuda_training_attention_test_plain_random_random"
TRAINING_ATTENTION_CHECKED = "kernels_cuda_training_attention_test_checked_random_random"
TRAINING_ROWS_CHECKED = "kernels_cuda_training_row_ops_test_checked_random_random"
TRAINING_ENDS = "kernels_cuda_training_ends_test_plain_random_random"
TRAINING_ENDS_CHECKED = "kernels_cuda_training_ends_test_checked_random_random"

RANDOM_SHAPES = "*RandomShapesMatchTheReference*"
GROUPS = "*GroupsMatchTheReference*"
SWIGLU = "*SwiGluMatchesTheReference*"
ATTENTION_SHAPES = "*MatchesReferenceOnRandomShapes*"
LONG_SEQUENCES = "*LongSequencesHaveTheSameBits*"

GEMM_MUTANTS = [
    Mutant("gemm_barrier", "kernels/cuda/gemm_pipeline.cuh",
           "      // reads the stage before it, which is the one to be filled.\n      __syncthreads();\n",
           "      // reads the stage before it, which is the one to be filled.\n",
           "no barrier between the wait for a stage and its use", GEMM, RANDOM_SHAPES),
    Mutant("gemm_wait_count", "kernels/cuda/gemm_pipeline.cuh", "CpAsyncWait<kStages - 2>();", "CpAsyncWait<kStages - 1>();",
           "waits for one stage too few", GEMM, RANDOM_SHAPES),
    Mutant("gemm_commit", "kernels/cuda/gemm_pipeline.cuh", "      CpAsyncCommit();\n      part.MultiplyStage",
           "      part.MultiplyStage", "copies of the loop are not made a group", GEMM, RANDOM_SHAPES),
    Mutant("gemm_stage_filled", "kernels/cuda/gemm_pipeline.cuh", "(stage + kStages - 1) % kStages *",
           "(stage + kStages - 2) % kStages *", "fills a stage that is still to be multiplied", GEMM, RANDOM_SHAPES),
    Mutant("gemm_stage_used", "kernels/cuda/gemm_pipeline.cuh", "stage = stage + 1 == kStages ? 0 : stage + 1;",
           "stage = stage + 2 >= kStages ? 0 : stage + 1;", "the last stage is never used", GEMM, RANDOM_SHAPES),
    Mutant("gemm_row_bound", "kernels/cuda/gemm_tiles.cuh", "row < tile_.num_rows ? args_.k - k : 0",
           "row <= tile_.num_rows ? args_.k - k : 0", "reads the row of x after the last", f"{GEMM_ASAN}|{GEMM_CHECKED}", RANDOM_SHAPES),
    Mutant("gemm_column_bound", "kernels/cuda/gemm_tiles.cuh", "column < args_.n ? kGemmPieceBytes : 0",
           "column <= args_.n ? kGemmPieceBytes : 0", "reads the row of W after the last", f"{GEMM_ASAN}|{GEMM_CHECKED}", RANDOM_SHAPES),
    Mutant("gemm_k_bound", "kernels/cuda/gemm_tiles.cuh", "piece[i] = i < count ? from[i] : Element{};",
           "piece[i] = i <= count ? from[i] : Element{};", "takes the next row's first input into a row", GEMM,
           "*NeighboursNeverLeak*:*NanAndInfinity*:*AddressesChangeNothing*"),
    Mutant("gemm_tile_bound", "kernels/cuda/gemm_tiles.cuh", "index_ >= groups_.tile_begin[group_ + 1]",
           "index_ > groups_.tile_begin[group_ + 1]", "a group's first tile is taken for the one before's", GEMM, GROUPS),
    Mutant("gemm_tile_step", "kernels/cuda/gemm_tiles.cuh", "index_ += static_cast<int32_t>(gridDim.x);", "index_ += 1;",
           "blocks do each other's tiles too", GEMM, RANDOM_SHAPES),
    Mutant("gemm_fragment_halves", "kernels/cuda/gemm_bf16.cu",
           "w[unit / 2][unit % 2 * 2],\n                                      w[unit / 2][unit % 2 * 2 + 1]}",
           "w[unit / 2][unit % 2 * 2 + 1],\n                                      w[unit / 2][unit % 2 * 2]}",
           "the two halves of W's fragment are swapped", GEMM, RANDOM_SHAPES),
    Mutant("gemm_fragment_lanes", "kernels/cuda/gemm_bf16.cu", "const int32_t x_half = Lane() / 16;",
           "const int32_t x_half = Lane() / 8 % 2;", "ldmatrix gets the addresses of W's order for x", GEMM, RANDOM_SHAPES),
    Mutant("gemm_strips", "kernels/cuda/gemm_bf16.cu", "(tile.num_rows - WarpRow() + 15) / 16", "(tile.num_rows - WarpRow()) / 16",
           "a strip of fewer than 16 rows is left out", GEMM, RANDOM_SHAPES),
    Mutant("gemm_store_row", "kernels/cuda/gemm_bf16.cu", "if (row < tile.num_rows) {", "if (row <= tile.num_rows) {",
           "writes the row after a group's last", GEMM, RANDOM_SHAPES),
    Mutant("gemm_swiglu_columns", "kernels/cuda/gemm_bf16.cu", "4 * lane + 2 * (unit % 2) +", "4 * lane + 2 * (unit / 2) +",
           "gates and ups of other columns meet", GEMM, SWIGLU),
    Mutant("gemm_f32_store_row", "kernels/cuda/gemm_f32.cu", "if (row >= tile.num_rows) break;", "if (row > tile.num_rows) break;",
           "writes the row after a group's last", GEMM, RANDOM_SHAPES),
    Mutant("gemm_store_column", "kernels/cuda/gemm_epilogue.cuh", "if (i < count) StoreOne(to + i, values[i]);",
           "if (i <= count) StoreOne(to + i, values[i]);", "writes the column after the last", GEMM, RANDOM_SHAPES),
    Mutant("gemm_swiglu_gate", "kernels/cuda/gemm_epilogue.cuh", "(1.0f + expf(-gate))", "(1.0f + expf(-up))",
           "the sigmoid of the wrong half", GEMM, SWIGLU),
]

ATTENTION_MUTANTS = [
    Mutant("attention_keys_overwritten", "kernels/cuda/attention.cu", "    __syncthreads();  // nobody reads these keys any more\n", "",
           "the next keys are copied over keys in use", f"{ATTENTION}|{ATTENTION_CHECKED}", f"{ATTENTION_SHAPES}:{LONG_SEQUENCES}"),
    Mutant("attention_values_barrier", "kernels/cuda/attention.cu", "    __syncthreads();  // values are there\n", "",
           "values are read before other threads' copies are waited for", f"{ATTENTION}|{ATTENTION_CHECKED}",
           f"{ATTENTION_SHAPES}:{LONG_SEQUENCES}"),
    Mutant("attention_wait_count", "kernels/cuda/attention.cu", "    CpAsyncWait<1>();\n    __syncthreads();  // keys are there",
           "    CpAsyncWait<2>();\n    __syncthreads();  // keys are there", "keys are not waited for", ATTENTION, ATTENTION_SHAPES),
    Mutant("attention_commit", "kernels/cuda/attention.cu", "    } else {\n      CpAsyncCommit();\n    }\n    if (seen) Softmax",
           "    }\n    if (seen) Softmax", "the last tile's values are not waited for", ATTENTION, ATTENTION_SHAPES),
    Mutant("attention_causal", "kernels/cuda/attention_rows.cuh", "return {begin, position + 1};", "return {begin, position + 2};",
           "a token sees the next one", ATTENTION, ATTENTION_SHAPES),
    Mutant("attention_window", "kernels/cuda/attention_rows.cuh", "? position - args.window + 1", "? position - args.window",
           "the window is one too wide", ATTENTION, ATTENTION_SHAPES),
    Mutant("attention_mask_left_out", "kernels/cuda/attention_rows.cuh", "end <= rows.seen[i].end;", "end <= rows.seen[i].end + 1;",
           "a tile with one hidden key is not masked", ATTENTION, f"{ATTENTION_SHAPES}:{LONG_SEQUENCES}"),
    Mutant("attention_partial_place", "kernels/cuda/attention_results.cuh", "piece.num_spans + span - piece.span_begin)", "piece.num_spans + span)",
           "partial results behind a window go to other places", f"{ATTENTION}|{ATTENTION_CHECKED}", LONG_SEQUENCES),
    Mutant("attention_correction", "kernels/cuda/attention_softmax.cuh", "state.l[row] = fmaf(state.l[row], correction, sum);",
           "state.l[row] += sum;", "the running sum is not scaled to the new maximum", ATTENTION, ATTENTION_SHAPES),
    Mutant("attention_quad", "kernels/cuda/attention_softmax.cuh", "return value + __shfl_xor_sync(0xffffffffu, value, 2);",
           "return value + __shfl_xor_sync(0xffffffffu, value, 1);", "sums half of a row's columns twice", ATTENTION, ATTENTION_SHAPES),
    Mutant("attention_fold", "kernels/cuda/attention_softmax.cuh", "return fmaf(out, before, o * now);", "return fmaf(o, before, out * now);",
           "spans are folded with each other's weights", ATTENTION, LONG_SEQUENCES),
    Mutant("attention_hidden_infinity", "kernels/cuda/attention_tiles.cuh", "            b[i] = finite;\n", "",
           "hidden bf16 values that are not finite count as NaN", ATTENTION, "*InfiniteValues*:*UnseenKeysAndValues*"),
    Mutant("attention_seen_infinity", "kernels/cuda/attention_tiles.cuh", "if (__any_sync(0xffffffffu, !all_finite)) {",
           "if (false && __any_sync(0xffffffffu, !all_finite)) {", "seen bf16 values that are not finite are lost", ATTENTION,
           "*InfiniteValues*:*UnseenKeysAndValues*"),
    Mutant("attention_copy_bound", "kernels/cuda/attention_copy.cuh", "to[i] = column + i < dim ? row[column + i] : Cache(0.0f);",
           "to[i] = column + i <= dim ? row[column + i] : Cache(0.0f);", "takes the next row's first element into a key",
           f"{ATTENTION}|{ATTENTION_CHECKED}", ATTENTION_SHAPES),
]

ROW_MUTANTS = [
    Mutant("rms_norm_barrier", "kernels/cuda/rms_norm.cu", "= sum;\n  __syncthreads();\n", "= sum;\n",
           "warps' sums are read before they are written", ROW_OPS, "*RmsNorm*"),
    Mutant("rms_norm_column", "kernels/cuda/rms_norm.cu", "if (col + i < hidden) StoreOne", "if (col + i <= hidden) StoreOne",
           "writes the column after the last", f"{ROW_OPS_ASAN}|{ROW_OPS_CHECKED}", "*RmsNorm*"),
    Mutant("rope_barrier", "kernels/cuda/rope.cu", "  __syncthreads();\n", "", "angles are used before they are written", ROW_OPS, "*Rope*"),
    Mutant("rope_values", "kernels/cuda/rope.cu", "half, i, cos_sin, is_key);", "half, i, cos_sin, true);", "values are turned as keys are",
           ROW_OPS, "*Rope*"),
    Mutant("router_again", "kernels/cuda/router.cu", "if (key < last)", "if (key <= last)", "the first expert is chosen again and again",
           ROW_OPS, "*Router*"),
    Mutant("router_lane", "kernels/cuda/router.cu", "if (lane == k % 32) {", "if (lane == 0) {",
           "a weight is divided by a lane that did not write it", "kernels_cuda_router_test_checked_random_random"),
    Mutant("gather_row", "kernels/cuda/permute.cu", "if (row >= args.num_rows) return;", "if (row > args.num_rows) return;",
           "writes the row after the last", "kernels_cuda_permute_test_asan_seq_lazy|kernels_cuda_permute_test_checked_seq_random",
           "GatherRowsTest*"),
    Mutant("combine_order", "kernels/cuda/permute.cu", "for (int32_t k = 0; k < args.top_k; ++k) {",
           "for (int32_t k = args.top_k - 1; k >= 0; --k) {", "slots are added in another order",
           "kernels_cuda_permute_test_plain_seq_lazy", "*SumsInSlotOrder*"),
    Mutant("embedding_column", "kernels/cuda/embedding.cu", "if (col >= args.hidden) return;", "if (col > args.hidden) return;",
           "writes the column after the last", f"{ROW_OPS_ASAN}|{ROW_OPS_CHECKED}", "*Embedding*"),
]

SAMPLING_MUTANTS = [
    Mutant("sampling_reduce_barrier", "kernels/cuda/token_search.cuh", "    }\n  }\n  __syncthreads();\n}", "    }\n  }\n}",
           "one reduction's sums are overwritten by the next's", f"{SAMPLING}|{SAMPLING_CHECKED}"),
    Mutant("sampling_limit", "kernels/cuda/token_search.cuh", "return key >= limit;", "return key > limit;",
           "the last token that a filter lets through is lost", SAMPLING),
    Mutant("sampling_threshold", "kernels/cuda/token_search.cuh", "if (*above + sums[i] >= target) {", "if (*above + sums[i] > target) {",
           "a mass reached exactly is not enough", SAMPLING),
    Mutant("sampling_adjusted", "kernels/cuda/sampling_kernels.cu", "if (row.adjusted >= 0) {", "if (row.adjusted > 0) {",
           "the first row with penalties is drawn without them", SAMPLING),
    Mutant("sampling_nan", "kernels/cuda/sampling_kernels.cu", "if (__syncthreads_or(nan)) {", "if (nan) {",
           "NaN is seen by the threads that read it only", SAMPLING, "*BadLogits*"),
    Mutant("sampling_list", "kernels/cuda/sampling_kernels.cu", "  if (threadIdx.x == 0) listed = 0;\n", "",
           "the second row's list goes on where the first's ended", SAMPLING, "*Logprobs*"),
    Mutant("sampling_edit_count", "kernels/cuda/sampling.cc", "      last->count += edit->count;\n", "",
           "a token that came twice is penalised once", SAMPLING),
]

TRAINING_MUTANTS = [
    Mutant("training_gemm_barrier", "kernels/cuda/gemm_backward.cu", "      }\n    }\n    __syncthreads();\n  }\n", "      }\n    }\n  }\n",
           "the next tiles are loaded over tiles in use", f"{TRAINING_PRODUCTS}|{TRAINING_PRODUCTS_CHECKED}"),
    Mutant("training_gemm_depth", "kernels/cuda/gemm_backward.cu", "if (col >= args.num_cols || r >= args.depth) return 0.0f;",
           "if (col >= args.num_cols || r > args.depth) return 0.0f;", "reads the row after the last", TRAINING_PRODUCTS_CHECKED),
    Mutant("training_attention_window", "kernels/cuda/attention_backward.cu", "< num_rows ? key + args.window\n",
           "< num_rows ? key + args.window + 1\n", "keys have a gradient from a query that does not see them", TRAINING_ATTENTION,
           "*BackwardOfRandomShapes*"),
    Mutant("training_attention_delta", "kernels/cuda/attention_backward.cu", "    if (there) delta = fmaf(gradient,",
           "    if (d == lane) delta = fmaf(gradient,", "rowsum(dout out) is of the first columns", TRAINING_ATTENTION, "*BackwardOfRandomShapes*"),
    Mutant("training_attention_weights", "kernels/cuda/attention_backward.cu",
           "    __syncwarp();\n    AddRows(shared.first, shared.weights, WithinTile(first_key",
           "    AddRows(shared.first, shared.weights, WithinTile(first_key", "a warp's weights are read before they are written",
           f"{TRAINING_ATTENTION}|{TRAINING_ATTENTION_CHECKED}", "*BackwardOfRandomShapes*"),
    Mutant("training_cross_entropy_barrier", "kernels/cuda/cross_entropy.cu",
           "  __syncthreads();  // the gradient may lie where the target's logit does\n", "", "the gradient is written over a logit that is still read",
           f"{TRAINING_ENDS}|{TRAINING_ENDS_CHECKED}", "*InPlace*"),
    Mutant("training_block_sum_barrier", "kernels/cuda/elements.cuh", "  const T total = shared[0];\n  __syncthreads();\n",
           "  const T total = shared[0];\n", "the next sum's values are written over this one's", TRAINING_ROWS_CHECKED, "*RmsNorm*"),
]

MUTANTS = GEMM_MUTANTS + ATTENTION_MUTANTS + ROW_MUTANTS + SAMPLING_MUTANTS + TRAINING_MUTANTS
