#!/usr/bin/env python3
"""What torch says about training steps on the golden checkpoints: losses, gradients and loss curves.

    python make_training_goldens.py            # writes CASE/{training,padding}.safetensors and CASE/adapter/
    python make_training_goldens.py --verify   # compares the committed ones with the installed versions; writes nothing

Needs transformers 4.x (whose experts are nn.Linear modules, so that PEFT can adapt them) and peft. Everything is fp32,
eager attention, one thread. The keys are described in README.md.
"""

import argparse
import pathlib
import shutil
import sys

import numpy as np
import peft
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

HERE = pathlib.Path(__file__).resolve().parent
CASES = ["e8k2_old", "e4k3_tied_window_old", "e16k3_old_sharded"]
AUX_COEF = 0.02
STEPS = 50
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate", "w1", "w2", "w3"]
RANK, ALPHA = 4, 12.0  # scale 3: no power of two
ROW_LENGTHS = [20, 13, 6]  # of the padded batch
PAD = 2  # </s>, as the seeds have it
MIN_ROUTER_GAP = 1e-4


def load(case):
    model = transformers.MixtralForCausalLM.from_pretrained(
        HERE / case, torch_dtype=torch.float32, attn_implementation="eager")
    model.config.router_aux_loss_coef = AUX_COEF
    model.router_aux_loss_coef = AUX_COEF
    return model.train()


def slots_of(case):
    """Four microbatches of one sequence each: the golden's long prompt in pieces, some labels not learnt."""
    with safe_open(HERE / case / "golden.safetensors", "pt") as golden:
        ids = golden.get_tensor("long/input_ids").long()
        medium = golden.get_tensor("medium/input_ids").long()
    pieces = [ids[:31], ids[31:], medium, ids[10:17]]
    slots = []
    for i, piece in enumerate(pieces):
        labels = piece.clone()
        labels[:i] = -100
        if i == 1:
            labels[7:12] = -100
        slots.append((piece, labels))
    return slots


def slot_losses(model, slots):
    """Mean over slots of (cross-entropy, aux loss), each slot a forward pass of its own: as batch size 1 and accumulation."""
    total, aux_total = 0.0, 0.0
    for ids, labels in slots:
        out = model(input_ids=ids[None], labels=labels[None], output_router_logits=True)
        aux_total = aux_total + out.aux_loss / len(slots)
        total = total + (out.loss - AUX_COEF * out.aux_loss) / len(slots)
    return total, aux_total


def batch_losses(model, ids, labels):
    """One forward pass over rows of equal length: token mean, statistics of the router over the whole batch."""
    out = model(input_ids=ids, labels=labels, output_router_logits=True)
    return out.loss - AUX_COEF * out.aux_loss, out.aux_loss


def router_gap(model, router_logits):
    """The least distance between the K-th and the next probability."""
    falling = torch.cat(router_logits).softmax(-1).sort(-1, descending=True).values
    k = model.config.num_experts_per_tok
    return (falling[:, k - 1] - falling[:, k]).min().item()


def make_padding(case):
    """A batch of unequal rows, padded at the right: with padding masked as transformers has it since 4.38, and counted."""
    model = load(case)
    slots = slots_of(case)
    longest = max(ROW_LENGTHS)
    ids = torch.full((len(ROW_LENGTHS), longest), PAD)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(ROW_LENGTHS):
        ids[row, :length], labels[row, :length] = slots[row][0][:length], slots[row][1][:length]
        mask[row, :length] = 1
    out = {"input_ids": ids.int(), "labels": labels.int(), "lengths": torch.tensor(ROW_LENGTHS).int()}
    for name, attention_mask in (("masked", mask), ("counted", None)):
        answer = model(input_ids=ids, labels=labels, attention_mask=attention_mask, output_router_logits=True)
        if (gap := router_gap(model, answer.router_logits)) < MIN_ROUTER_GAP:
            sys.exit(f"{case}, {name}: a router's choice is a near-tie ({gap:.1e})")
        total, aux = answer.loss - AUX_COEF * answer.aux_loss, answer.aux_loss
        out[f"{name}/loss"], out[f"{name}/aux_loss"] = total.detach()[None], aux.detach()[None]
        for key, grad in gradients(model, total, aux).items():
            if "gate" in key or "norm" in key or "layers.0.self_attn" in key:
                out[f"{name}/grad/{key}"] = grad
        if attention_mask is not None:
            # transformers 4.36 and 4.37: the mask reaches attention and not the loss.
            old = load_balancing_loss_func(answer.router_logits, model.num_experts, model.num_experts_per_tok, None)
            out["masked/aux_loss_4_37"] = old.detach()[None]
    return {key: value.contiguous() for key, value in out.items()}


def gradients(model, total, aux):
    model.zero_grad()
    (total + AUX_COEF * aux).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def curve(model, slots, steps):
    decay, rest = [], []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (rest if "norm" in name else decay).append(p)
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=1e-3)
    losses, norms = [], []
    for _ in range(steps):
        total, aux = slot_losses(model, slots)
        losses.append(total.item())
        optimizer.zero_grad()
        (total + AUX_COEF * aux).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(
            [p for p in model.parameters() if p.requires_grad], 1.0).item())
        optimizer.step()
    return torch.tensor(losses), torch.tensor(norms)


def adapted(case):
    """The model with an adapter on every module; A and B random, so that both have gradients."""
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=MODULES, bias="none",
                             task_type="CAUSAL_LM")
    model = peft.get_peft_model(load(case), config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * (0.2 if "lora_A" in name else 0.05))
    return model.train()


def plain_name(name):
    """A parameter's name in an adapter file, without `base_model.model.`."""
    return name.replace("base_model.model.", "", 1).replace(".default", "")


def make(case, adapter_dir):
    slots = slots_of(case)
    out = {}
    for i, (ids, labels) in enumerate(slots):
        out[f"slot{i}/input_ids"], out[f"slot{i}/labels"] = ids.int(), labels.int()

    model = load(case)
    total, aux = slot_losses(model, slots)
    out["full/loss"], out["full/aux_loss"] = total.detach()[None], aux.detach()[None]
    for name, grad in gradients(model, total, aux).items():
        out[f"full/grad/{name}"] = grad

    ids = torch.stack([slots[0][0][:20], slots[1][0][:20], slots[2][0][:20]])
    labels = ids.clone()
    labels[1, :9] = -100
    out["batch/input_ids"], out["batch/labels"] = ids.int(), labels.int()
    total, aux = batch_losses(model, ids, labels)
    out["batch/loss"], out["batch/aux_loss"] = total.detach()[None], aux.detach()[None]
    for name, grad in gradients(model, total, aux).items():
        if "gate" in name or "norm" in name or "layers.0.self_attn" in name:
            out[f"batch/grad/{name}"] = grad

    out["full/curve"], out["full/grad_norms"] = curve(load(case), slots, STEPS)

    model = adapted(case)
    model.peft_config["default"].base_model_name_or_path = case
    model.save_pretrained(adapter_dir)
    (adapter_dir / "README.md").unlink(missing_ok=True)
    total, aux = slot_losses(model, slots)
    out["lora/loss"], out["lora/aux_loss"] = total.detach()[None], aux.detach()[None]
    for name, grad in gradients(model, total, aux).items():
        out[f"lora/grad/{plain_name(name)}"] = grad
    with torch.no_grad():
        out["lora/logits"] = model(input_ids=slots[0][0][None]).logits[0]
    out["lora/curve"], out["lora/grad_norms"] = curve(model, slots, STEPS)
    return {key: value.contiguous() for key, value in out.items()}


def differences(file, made):
    worst = 0.0
    with safe_open(file, "pt") as committed:
        if sorted(committed.keys()) != sorted(made):
            sys.exit(f"{file}: other keys than those committed")
        for key in made:
            old, new = committed.get_tensor(key).double(), made[key].double()
            worst = max(worst, ((old - new).abs().max() / old.abs().max().clamp_min(1e-12)).item())
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verify", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    np.random.seed(0)
    for case in CASES:
        adapter_dir = HERE / case / "adapter"
        if arguments.verify:
            scratch = HERE / case / "adapter.verify"
            made = make(case, scratch)
            shutil.rmtree(scratch)
            worst = max(differences(HERE / case / "training.safetensors", made),
                        differences(HERE / case / "padding.safetensors", make_padding(case)))
            print(f"{case}: largest relative difference {worst:.2e}")
            if worst > 1e-4:
                sys.exit(f"{case}: differs from what is committed")
            continue
        made = make(case, adapter_dir)
        save_file(made, HERE / case / "training.safetensors")
        padding = make_padding(case)
        save_file(padding, HERE / case / "padding.safetensors")
        print(f"{case}: loss {made['full/loss'].item():.6f}, aux {made['full/aux_loss'].item():.6f}, "
              f"after {STEPS} steps {made['full/curve'][-1].item():.6f}; lora {made['lora/loss'].item():.6f} to "
              f"{made['lora/curve'][-1].item():.6f}; aux of a padded batch "
              + ", ".join(f"{padding[key].item():.6f} ({name})" for key, name in (
                  ("masked/aux_loss", "masked"), ("counted/aux_loss", "counted"),
                  ("masked/aux_loss_4_37", "counted, attention masked"))))


if __name__ == "__main__":
    main()
