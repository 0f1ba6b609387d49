#include "launch/train_flags.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

constexpr double kMost = 1e12;

std::vector<std::string> Names(const std::string& list) {
  std::vector<std::string> names;
  for (absl::string_view name :
       absl::StrSplit(list, ',', absl::SkipWhitespace())) {
    names.emplace_back(absl::StripAsciiWhitespace(name));
  }
  return names;
}

absl::Status BadFlag(absl::string_view flag, absl::string_view found,
                     absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(
      "octet train: --", flag, " is '", found, "', expected ", expected));
}

void AddDataFlags(TrainFlags& f, Flags& flags) {
  flags.Add("dataset", &f.dataset,
            "names in dataset_info.json, with commas between");
  flags.Add("dataset-dir", &f.dataset_dir,
            "directory of dataset_info.json, or of .txt (pt) or .json (sft) "
            "files, all of which are taken when no --dataset is named");
  flags.Add("train-file", &f.train_file, "files, with commas between");
  flags.Add("template", &f.chat_template, "chat template (sft)");
  flags.Add("cutoff-len", &f.cutoff_len, "tokens of a row at most",
            {.min = 2, .max = 1 << 20});
  flags.Add("reserved-label-len", &f.reserved_label_len,
            "tokens of an answer that are kept at least", {.min = 1});
  flags.AddChoice("cutoff-rule", &f.cutoff_rule, {"proportional", "drop"},
                  "rows that are too long: cut questions and answers in "
                  "proportion, or drop those whose question is too long");
  flags.Add("train-on-prompt", &f.train_on_prompt, "questions are learnt too");
  flags.Add("ignore-eos", &f.ignore_eos,
            "pt: the end of a text is not learnt, as Aurora has it");
  flags.Add("streaming", &f.streaming,
            "read the files anew in every epoch; needs --max-steps");
  flags.Add("buffer-size", &f.buffer_size,
            "streaming: examples that are shuffled at once", {.min = 1});
  flags.AddChoice("mix-strategy", &f.mix_strategy,
                  {"concat", "interleave_under", "interleave_over"},
                  "several data sets");
  flags.Add("interleave-probs", &f.interleave_probs,
            "probability of each data set, with commas between");
  flags.Add("max-samples", &f.max_samples, "rows of each data set; 0: all",
            {.min = 0});
  flags.Add("val-size", &f.val_size,
            "rows kept for evaluation: a share below 1, or a number",
            {.min = 0});
  flags.Add("sft-packing", &f.sft_packing, "sft: pack rows into blocks");
  flags.Add("isolate-documents", &f.isolate_documents,
            "packed documents do not see each other");
  flags.AddChoice("bad-rows", &f.bad_rows, {"stop", "skip"},
                  "rows that are wrong");
  flags.AddChoice("unnamed-columns", &f.unnamed_columns, {"default", "none"},
                  "columns that a data set's `columns` does not name");
  flags.Add("preprocessing-num-workers", &f.preprocessing_workers,
            "threads that tokenise", {.min = 1, .max = 256});
}

void AddModelFlags(TrainFlags& f, Flags& flags) {
  flags.Add("lora-rank", &f.lora_rank, "r", {.min = 1, .max = 4096});
  flags.Add("lora-alpha", &f.lora_alpha, "alpha (default 2 r)", {.min = 1e-6});
  flags.Add("lora-dropout", &f.lora_dropout, "dropout before A",
            {.min = 0, .max = 0.999});
  flags.Add("lora-target", &f.lora_target,
            "modules with commas between: q_proj, k_proj, v_proj, o_proj, "
            "gate, w1, w2, w3, or all");
  flags.Add("additional-target", &f.additional_target,
            "modules trained in full beside the adapters: embed_tokens, "
            "lm_head, norm, ...");
  flags.Add("checkpoint-dir", &f.adapter, "a PEFT adapter to continue");
  flags.Add("name-module-trainable", &f.name_module_trainable,
            "freeze: what a layer's trained weights have in their names");
  flags.Add("num-layer-trainable", &f.num_layer_trainable,
            "freeze: layers that are trained, the last ones; negative: the "
            "first ones");
  flags.Add("gradient-checkpointing", &f.gradient_checkpointing,
            "keep only the layers' inputs and compute the rest again");
  flags.Add("router-aux-loss-coef", &f.router_aux_loss_coef,
            "weight of the load balancing loss", {.min = 0});
  flags.Add("router-z-loss-coef", &f.router_z_loss_coef,
            "weight of the router's z-loss", {.min = 0});
  flags.Add("router-aux-loss-per-layer", &f.router_aux_loss_per_layer,
            "balance each layer by itself");
  flags.Add(
      "router-aux-loss-counts-padding", &f.router_aux_loss_counts_padding,
      "pad a microbatch's rows to its longest, and count the padding in the "
      "router's losses (docs/training.md compares transformers')");
}

void AddStepFlags(TrainFlags& f, Flags& flags) {
  flags.Add("per-device-train-batch-size", &f.train_batch_size,
            "rows of a microbatch, whatever the number of ranks", {.min = 1});
  flags.Add("per-device-eval-batch-size", &f.eval_batch_size,
            "the same in evaluation", {.min = 1});
  flags.Add("gradient-accumulation-steps", &f.accumulation,
            "microbatches of a step", {.min = 1});
  flags.Add("learning-rate", &f.learning_rate, "at its peak", {.min = 0});
  flags.Add("weight-decay", &f.weight_decay, "AdamW, norms have none",
            {.min = 0});
  flags.Add("adam-beta1", &f.adam_beta1, "AdamW", {.min = 0, .max = 0.99999});
  flags.Add("adam-beta2", &f.adam_beta2, "AdamW", {.min = 0, .max = 0.99999});
  flags.Add("adam-epsilon", &f.adam_epsilon, "AdamW", {.min = 0});
  flags.Add("max-grad-norm", &f.max_grad_norm,
            "norm that gradients are clipped to; 0: not clipped", {.min = 0});
  flags.Add("num-train-epochs", &f.num_train_epochs, "epochs", {.min = 0});
  flags.Add("max-steps", &f.max_steps, "steps instead of epochs; -1: epochs");
  flags.AddChoice("lr-scheduler-type", &f.lr_scheduler_type,
                  {ScheduleNames().begin(), ScheduleNames().end()},
                  "how the rate falls");
  flags.Add("warmup-steps", &f.warmup_steps, "steps in which the rate rises",
            {.min = 0});
  flags.Add("warmup-ratio", &f.warmup_ratio, "the same as a share of all steps",
            {.min = 0, .max = 1});
  flags.Add("call-tokens", &f.call_tokens,
            "tokens of one call to the service, over all ranks",
            {.min = 1, .max = kMost});
  flags.Add("seed", &f.seed, "of data order, adapters and dropout");
}

void AddReportFlags(TrainFlags& f, Flags& flags) {
  flags.Add("logging-steps", &f.logging_steps, "steps between log lines",
            {.min = 1});
  flags.Add("logging-first-step", &f.logging_first_step, "log step 1 too");
  flags.Add("save-steps", &f.save_steps,
            "steps between checkpoints; 0: only at the end", {.min = 0});
  flags.Add("save-total-limit", &f.save_total_limit,
            "checkpoints that are kept; 0: all", {.min = 0});
  flags.Add("background-saves", &f.background_saves,
            "write checkpoints while the next steps run, but for the last one "
            "(default; =false: wait)");
  flags.AddChoice("evaluation-strategy", &f.evaluation_strategy,
                  {"no", "steps"}, "evaluation during training");
  flags.Add("eval-on-start", &f.eval_on_start,
            "evaluate before the first step");
  flags.Add("eval-steps", &f.eval_steps,
            "steps between evaluations; 0: as --logging-steps", {.min = 0});
}

}  // namespace

void TrainFlags::AddTo(Flags& flags) {
  flags.AddChoice("stage", &stage, {"pt", "sft"},
                  "pre-training or instruction tuning");
  flags.AddChoice("finetuning-type", &finetuning_type,
                  {"lora", "freeze", "full"}, "what is trained");
  flags.Add("output-dir", &output_dir,
            "logs, checkpoints, weights; shared with the ranks");
  flags.Add("overwrite-output-dir", &overwrite_output_dir,
            "begin anew; the directory's checkpoints are removed");
  flags.Add("resume-from-checkpoint", &resume_from_checkpoint,
            "a checkpoint-N (default: the newest in --output-dir)");
  AddDataFlags(*this, flags);
  AddModelFlags(*this, flags);
  AddStepFlags(*this, flags);
  AddReportFlags(*this, flags);
  flags.AddAlias("trainable", "lora-target");
  flags.AddAlias("modules-to-save", "additional-target");
  flags.AddAlias("peft-path", "checkpoint-dir");
  flags.AddAlias("block-size", "cutoff-len");
  flags.AddAlias("max-seq-length", "cutoff-len");
  flags.AddAlias("max-train-samples", "max-samples");
  flags.AddAlias("validation-split-percentage", "val-size");
  flags.AddAlias("eval-strategy", "evaluation-strategy");
  // What the seeds' scripts give and what there is no choice about here.
  flags.Ignore({"do-train",
                "do-eval",
                "overwrite-cache",
                "cache-dir",
                "report-to",
                "ddp-timeout",
                "ddp-find-unused-parameters",
                "disable-tqdm",
                "use-fast-tokenizer",
                "flash-attn",
                "use-flash-attention-2",
                "plot-loss",
                "output-router-logits",
                "fp16",
                "bf16",
                "logging-strategy",
                "save-strategy",
                "data-cache-dir",
                "deepspeed",
                "low-cpu-mem-usage",
                "upcast-layernorm",
                "save-safetensors"});
}

absl::StatusOr<DataOptions> TrainFlags::ToDataOptions() const {
  DataOptions data;
  data.dataset_dir = dataset_dir;
  data.datasets = Names(dataset);
  data.files = Names(train_file);
  data.unnamed_columns = unnamed_columns == "none" ? UnnamedColumns::kNone
                                                   : UnnamedColumns::kDefault;
  data.encoder.stage = stage == "pt" ? Stage::kPretrain : Stage::kSft;
  data.encoder.chat_template = chat_template;
  data.encoder.cutoff_len = cutoff_len;
  data.encoder.reserved_label_len = reserved_label_len;
  data.encoder.train_on_prompt = train_on_prompt;
  data.encoder.ignore_eos = ignore_eos;
  data.encoder.cutoff_rule = sft_packing ? CutoffRule::kKeep
                             : cutoff_rule == "drop"
                                 ? CutoffRule::kDropLongSource
                                 : CutoffRule::kProportional;
  data.sft_packing = sft_packing;
  data.isolate_documents = isolate_documents;
  data.mix_strategy = mix_strategy == "concat" ? MixStrategy::kConcat
                      : mix_strategy == "interleave_under"
                          ? MixStrategy::kInterleaveUnder
                          : MixStrategy::kInterleaveOver;
  for (const std::string& text : Names(interleave_probs)) {
    double value = 0;
    if (!absl::SimpleAtod(text, &value) || !(value >= 0) || value > 1) {
      return BadFlag("interleave-probs", interleave_probs,
                     "numbers from 0 to 1 with commas between");
    }
    data.interleave_probs.push_back(value);
  }
  data.max_samples = max_samples;
  data.val_size = val_size;
  data.seed = seed;
  data.streaming = streaming;
  data.buffer_size = buffer_size;
  data.bad_rows =
      bad_rows == "skip" ? BadRowPolicy::kSkip : BadRowPolicy::kStop;
  data.num_threads = preprocessing_workers;
  return data;
}

absl::Status TrainFlags::FillRun(int num_layers,
                                 v1::CreateRunRequest* run) const {
  run->set_seed(seed);
  run->set_recompute(gradient_checkpointing);
  run->mutable_router_loss()->set_aux_coef(router_aux_loss_coef);
  run->mutable_router_loss()->set_z_coef(router_z_loss_coef);
  run->mutable_router_loss()->set_per_layer(router_aux_loss_per_layer);
  if (finetuning_type == "full") {
    run->set_method(v1::TRAINING_METHOD_FULL);
  } else if (finetuning_type == "freeze") {
    run->set_method(v1::TRAINING_METHOD_FREEZE);
    if (num_layer_trainable == 0 ||
        std::abs(num_layer_trainable) > num_layers) {
      return BadFlag("num-layer-trainable", absl::StrCat(num_layer_trainable),
                     absl::StrCat("1 to ", num_layers, ", or -1 to -",
                                  num_layers, ", the model's layers"));
    }
    // "mlp" is the seeds' default, which names nothing in a Mixtral.
    const std::string module = name_module_trainable == "mlp"
                                   ? "block_sparse_moe"
                                   : name_module_trainable;
    const int count = std::abs(num_layer_trainable);
    const int first = num_layer_trainable > 0 ? num_layers - count : 0;
    for (int layer = first; layer < first + count; ++layer) {
      run->add_trainable(
          absl::StrCat("model.layers.", layer, ".*", module, "*"));
    }
  } else {
    run->set_method(v1::TRAINING_METHOD_LORA);
    v1::LoraConfig& lora = *run->mutable_lora();
    lora.set_rank(lora_rank);
    if (lora_alpha.has_value()) lora.set_alpha(*lora_alpha);
    lora.set_dropout(lora_dropout);
    for (const std::string& name : Names(lora_target)) {
      lora.add_target_modules(name);
    }
    for (const std::string& name : Names(additional_target)) {
      lora.add_modules_to_save(name);
    }
    if (!adapter.empty()) lora.set_init_from(fs::absolute(adapter).string());
  }
  return absl::OkStatus();
}

absl::StatusOr<TrainJobOptions> TrainFlags::ToJobOptions(int num_layers,
                                                         int num_ranks) const {
  TrainJobOptions job;
  OCTET_RETURN_IF_ERROR(FillRun(num_layers, &job.run));
  OCTET_ASSIGN_OR_RETURN(job.schedule, ParseScheduleKind(lr_scheduler_type));
  job.output_dir = fs::absolute(output_dir).string();
  job.train_batch_size = train_batch_size;
  job.eval_batch_size = eval_batch_size;
  job.accumulation = accumulation;
  job.num_epochs = num_train_epochs;
  job.max_steps = std::max<int64_t>(0, max_steps);
  job.warmup_steps = warmup_steps;
  job.warmup_ratio = warmup_ratio;
  job.adamw.set_learning_rate(learning_rate);
  job.adamw.set_beta1(adam_beta1);
  job.adamw.set_beta2(adam_beta2);
  job.adamw.set_eps(adam_epsilon);
  job.adamw.set_weight_decay(weight_decay);
  job.adamw.set_max_grad_norm(max_grad_norm);
  job.call_tokens = call_tokens;
  // Slots are not split, so a rank may get one more than its share.
  const int64_t most =
      std::max<int64_t>({call_tokens, int64_t{train_batch_size} * cutoff_len,
                         int64_t{eval_batch_size} * cutoff_len});
  job.run.set_max_rank_tokens(most / num_ranks + cutoff_len);
  job.logging_steps = logging_steps;
  job.logging_first_step = logging_first_step;
  job.save_steps = save_steps;
  job.save_total_limit = save_total_limit;
  job.background_saves = background_saves;
  job.eval_on_start = eval_on_start;
  if (evaluation_strategy == "steps") {
    job.eval_steps = eval_steps > 0 ? eval_steps : logging_steps;
  }
  return job;
}

}  // namespace octet
