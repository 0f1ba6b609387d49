// The flags of `octet train`, with the names and defaults of the seeds (Aurora,
// Chinese-Mixtral and the Trainer of transformers below them).
#ifndef OCTET_LAUNCH_TRAIN_FLAGS_H_
#define OCTET_LAUNCH_TRAIN_FLAGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/data/data_pipeline.h"
#include "client/train/train_job.h"
#include "launch/flags.h"

namespace octet {

struct TrainFlags {
  // What and how.
  std::string stage = "sft";
  std::string finetuning_type = "lora";
  std::string output_dir;
  bool overwrite_output_dir = false;
  std::string resume_from_checkpoint;

  // Data.
  std::string dataset, dataset_dir = "data", train_file;
  std::string chat_template = "mistral";
  int cutoff_len = 1024, reserved_label_len = 1;
  std::string cutoff_rule = "proportional";
  bool train_on_prompt = false, ignore_eos = false;
  bool streaming = false, sft_packing = false, isolate_documents = false;
  int64_t buffer_size = 16384, max_samples = 0;
  std::string mix_strategy = "concat", interleave_probs;
  std::string bad_rows = "stop", unnamed_columns = "default";
  float val_size = 0;
  int preprocessing_workers = 1;

  // What is trained.
  int lora_rank = 8;
  std::optional<float> lora_alpha;
  float lora_dropout = 0.1f;
  std::string lora_target = "all", additional_target, adapter;
  std::string name_module_trainable = "block_sparse_moe";
  int num_layer_trainable = 3;
  bool gradient_checkpointing = false;

  // Losses.
  float router_aux_loss_coef = 0.02f, router_z_loss_coef = 0;
  bool router_aux_loss_per_layer = false;
  bool router_aux_loss_counts_padding = false;

  // Steps.
  int train_batch_size = 8, eval_batch_size = 8, accumulation = 1;
  float learning_rate = 5e-5f, weight_decay = 0, max_grad_norm = 1;
  float adam_beta1 = 0.9f, adam_beta2 = 0.999f, adam_epsilon = 1e-8f;
  float num_train_epochs = 3, warmup_ratio = 0;
  int64_t max_steps = -1, warmup_steps = 0;
  std::string lr_scheduler_type = "linear";
  int64_t call_tokens = 16384;
  uint64_t seed = 42;

  // Reports.
  int logging_steps = 500, save_total_limit = 0;
  bool background_saves = true;
  int64_t save_steps = 500, eval_steps = 0;
  std::string evaluation_strategy = "no";
  bool logging_first_step = false, eval_on_start = false;

  void AddTo(Flags& flags);
  // INVALID_ARGUMENT names the flag. `num_layers`: L of the model; `num_ranks`:
  // R of the group, which a call's tokens are shared out over.
  absl::StatusOr<DataOptions> ToDataOptions() const;
  absl::StatusOr<TrainJobOptions> ToJobOptions(int num_layers,
                                               int num_ranks) const;

 private:
  absl::Status FillRun(int num_layers, v1::CreateRunRequest* run) const;
};

}  // namespace octet

#endif  // OCTET_LAUNCH_TRAIN_FLAGS_H_
