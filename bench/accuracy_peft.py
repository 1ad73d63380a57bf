"""Accuracy that PEFT prompt tuning reaches on a classification task: the other side of our accuracy table.

    python accuracy_peft.py --model DIR --train train.jsonl --dev dev.jsonl --test test.jsonl \\
        --template '{text}\\nSentiment:' --labels 'negative= negative,positive= positive' \\
        --init-text 'Classify the sentiment of the review as positive or negative.' \\
        --learning-rates 0.002 0.0065 0.02 --seeds 1 2 3 --out peft.jsonl

With --trainer-defaults: what PEFT and the Trainer of transformers do where nothing is said. Rows drawn from N(0, 1), learning
rate 5e-5 falling linearly to 0 without warm-up, 3 epochs of batches of 8; --init-text, --steps and the like do not count then.

One run per learning rate and seed. Each appends one JSON line to --out when it is done; runs that are already
there with the same settings are skipped. Everything in float32; OMP_NUM_THREADS sets the threads.

Training: PEFT's model, right-padded batches, full-vocabulary cross-entropy, mean over the batch's label tokens,
AdamW (0.9, 0.999) without weight decay, warm-up over 5 % of the steps, cosine to 10 % of the peak, gradient norm
clipped at 1. Logits are made only at positions where some row of the batch has a label token, which changes no
number and is kinder to PEFT than its usual loop. Ten evaluations on dev; the prompt with the best dev accuracy
(ties: lower dev loss) is tested. A label is predicted by the largest log-likelihood of its tokens.
"""

import argparse
import json
import math
import os
import random
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "testdata"))

import torch
import torch.nn.functional as F

from golden_common import Tokenizer, load_model, parse_labels, read_jsonl, render, right_padded, versions


def main():
    args = arguments()
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    tokenizer = Tokenizer(args.model / "tokenizer.json")
    labels = [tokenizer.label(string) for string in args.labels.values()]
    task = Task(args, tokenizer, labels)
    print(f"{len(task.train)} / {len(task.dev)} / {len(task.test)} rows, {task.cuts} cut, label ids {labels}")

    for learning_rate in args.learning_rates:
        for seed in args.seeds:
            settings = run_settings(args, learning_rate, seed)
            if any(record["settings"] == settings for record in finished(args.out)):
                print(f"lr {learning_rate} seed {seed}: already in {args.out}")
                continue
            record = {"settings": settings, **one_run(args, task, learning_rate, seed), "versions": versions()}
            with args.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            print(
                f"lr {learning_rate} seed {seed}: test {record['test_accuracy']:.4f}, "
                f"dev {record['dev_accuracy']:.4f} at step {record['best_step']}, "
                f"{record['seconds_per_step']:.3f} s a step",
                flush=True,
            )
    summary(args)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face directory")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--template", default="{text}\nLabel:", help=r"\n stands for a newline")
    parser.add_argument("--labels", type=parse_labels, required=True, help="name=string,name=string")
    parser.add_argument("--label-field", default="label")
    parser.add_argument("--init", choices=["text", "vocab", "random"], default="text", help="rows at first: --init-text's, words by chance, N(0, 1)")
    parser.add_argument("--init-text", default="")
    parser.add_argument("--virtual-tokens", type=int, default=20)
    parser.add_argument("--learning-rates", nargs="+", help="numbers, or shares of the root mean square of the embeddings as 3%%")
    parser.add_argument("--trainer-defaults", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each is an order of the training data")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--eval-batch-size", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=512, help="tokens of template, text and label")
    parser.add_argument("--dev-limit", type=int, help="only the first N dev rows")
    parser.add_argument("--test-limit", type=int, help="only the first N test rows")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.template = args.template.replace("\\n", "\n")
    if args.trainer_defaults:
        n = len(read_jsonl(args.train))
        args.init, args.learning_rates, args.batch_size, args.steps = "random", ["5e-5"], 8, 3 * math.ceil(n / 8)
    if not args.learning_rates:
        parser.error("--learning-rates or --trainer-defaults")
    if args.init == "text" and not args.init_text:
        parser.error("--init text wants --init-text")
    return args


def run_settings(args, learning_rate, seed):
    """What makes a run the same run; file names without their folders."""
    return {
        "model": args.model.resolve().name,
        "data": [f"{path.resolve().parent.name}/{path.name}" for path in (args.train, args.dev, args.test)],
        "limits": [args.dev_limit, args.test_limit],
        "template": args.template,
        "labels": args.labels,
        "label_field": args.label_field,
        "init": args.init,
        "init_text": args.init_text if args.init == "text" else None,
        "trainer_defaults": args.trainer_defaults,
        "virtual_tokens": args.virtual_tokens,
        "learning_rate": learning_rate,
        "steps": args.steps,
        "batch_size": args.batch_size,
        "max_length": args.max_length,
        "seed": seed,
    }


def finished(out):
    return read_jsonl(out) if out.exists() else []


def summary(args):
    """Mean test accuracy per learning rate, over the seeds asked for."""
    records = finished(args.out)
    for learning_rate in args.learning_rates:
        wanted = [run_settings(args, learning_rate, seed) for seed in args.seeds]
        runs = [record for record in records if record["settings"] in wanted]
        tests = [run["test_accuracy"] for run in runs]
        devs = [run["dev_accuracy"] for run in runs]
        deviation = f" ± {statistics.stdev(tests):.4f}" if len(tests) > 1 else ""
        print(
            f"lr {learning_rate}: mean test {statistics.mean(tests):.4f}{deviation}, "
            f"mean dev {statistics.mean(devs):.4f}, {len(tests)} runs"
        )


class Task:
    """The three splits as (context ids, label number)."""

    def __init__(self, args, tokenizer, labels):
        self.tokenizer, self.labels, self.cuts = tokenizer, labels, 0
        self.names = list(args.labels)
        self.room = args.max_length - max(map(len, labels))
        self.train, self.dev, self.test = (
            [self.example(args, row) for row in read_jsonl(path)[:limit]]
            for path, limit in ((args.train, None), (args.dev, args.dev_limit), (args.test, args.test_limit))
        )

    def example(self, args, row):
        label = self.names.index(str(row[args.label_field]))
        fields = {name: str(value) for name, value in row.items() if "{" + name + "}" in args.template}
        context = self.tokenizer.context(render(args.template, fields))
        if len(context) > self.room:  # the longest field is cut, never the template
            self.cuts += 1
            longest = max(fields, key=lambda name: len(fields[name]))
            text, low, high = fields[longest], 0, len(fields[longest])
            while low < high:
                middle = (low + high + 1) // 2
                shorter = render(args.template, {**fields, longest: text[:middle]})
                low, high = (middle, high) if len(self.tokenizer.context(shorter)) <= self.room else (low, middle - 1)
            context = self.tokenizer.context(render(args.template, {**fields, longest: text[:low]}))
        return context, label


def one_run(args, task, learning_rate, seed):
    from peft import PromptTuningConfig, get_peft_model

    torch.manual_seed(seed)
    base = load_model(args.model, attention="sdpa")
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=args.virtual_tokens)
    model = get_peft_model(base, config)
    model.eval()  # no dropout in the frozen model
    prompt = model.prompt_encoder["default"].embedding.weight
    if args.init != "random":  # N(0, 1) is what PEFT itself begins with
        with torch.no_grad():
            prompt.copy_(initial_rows(base, task.tokenizer, args))

    optimizer = torch.optim.AdamW([prompt], lr=in_numbers(learning_rate, base), betas=(0.9, 0.999), weight_decay=0.0)
    shape = linear_to_zero if args.trainer_defaults else share_of_peak
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: shape(step, args.steps))
    batches = batches_of(task.train, args.batch_size, seed)
    every = args.steps if args.trainer_defaults else max(1, args.steps // 10)
    best, losses, evaluations, seconds = None, [], [], 0.0
    for step in range(1, args.steps + 1):
        batch = next(batches)
        began = time.perf_counter()
        loss = training_loss(model, task, batch, args.virtual_tokens)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([prompt], 1.0)
        optimizer.step()
        schedule.step()
        seconds += time.perf_counter() - began
        losses.append(loss.item())
        if step % every == 0 or step == args.steps:
            accuracy, dev_loss = evaluate(base, prompt, task, task.dev, args.eval_batch_size)
            evaluations.append({"step": step, "dev_accuracy": accuracy, "dev_loss": dev_loss})
            if best is None or (accuracy, -dev_loss) > best[0]:
                best = ((accuracy, -dev_loss), step, prompt.detach().clone())
            recent = statistics.mean(losses[-every:])
            print(f"  step {step}: loss {recent:.4f}, dev {accuracy:.4f}, dev loss {dev_loss:.4f}", flush=True)

    began = time.perf_counter()
    test_accuracy, test_loss = evaluate(base, best[2], task, task.test, args.eval_batch_size)
    return {
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "dev_accuracy": best[0][0],
        "dev_loss": -best[0][1],
        "best_step": best[1],
        "evaluations": evaluations,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds_per_step": seconds / args.steps,
        "test_seconds": time.perf_counter() - began,
        "threads": torch.get_num_threads(),
    }


def initial_rows(base, tokenizer, args):
    """-> [P, H] embedding rows of the text's tokens, tiled or cut; or of tokens by chance."""
    table, count = base.get_input_embeddings(), args.virtual_tokens
    if args.init == "vocab":
        return table(torch.randint(0, table.num_embeddings, (count,)))
    ids = tokenizer.plain(args.init_text)
    ids = (ids * math.ceil(count / len(ids)))[:count]
    return table(torch.tensor(ids))


def in_numbers(learning_rate, base):
    """A learning rate as it stands, or as a share of the scale of the embeddings."""
    if not learning_rate.endswith("%"):
        return float(learning_rate)
    rms = base.get_input_embeddings().weight.float().pow(2).mean().sqrt().item()
    return float(learning_rate.rstrip("%")) / 100 * rms


def linear_to_zero(step, steps):
    """The schedule of the Trainer where nothing is said."""
    return (steps - step) / steps


def share_of_peak(step, steps):
    """Linear warm-up over 5 % of the steps, then a cosine to 10 %. `step` counts from 0."""
    warm = max(1, round(0.05 * steps))
    if step < warm:
        return (step + 1) / warm
    progress = min(1.0, (step - warm) / max(1, steps - warm - 1))
    return 0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * progress))


def batches_of(rows, size, seed):
    """Endless batches; every epoch in a new order that only the seed decides."""
    order, shuffler = [], random.Random(seed)
    while True:
        while len(order) < size:
            epoch = list(range(len(rows)))
            shuffler.shuffle(epoch)
            order += epoch
        yield [rows[i] for i in order[:size]]
        del order[:size]


def training_loss(model, task, batch, virtual_tokens):
    """Full-vocabulary cross-entropy, mean over the batch's label tokens, through PEFT's forward."""
    ids, mask = right_padded([context + task.labels[label] for context, label in batch], task.tokenizer.pad)
    # The logits row before each label token; the learned rows stand in front.
    wanted = [
        (row, virtual_tokens + len(context) + i - 1, token)
        for row, (context, label) in enumerate(batch)
        for i, token in enumerate(task.labels[label])
    ]
    positions = sorted({position for _, position, _ in wanted})
    column = {position: i for i, position in enumerate(positions)}
    kept = torch.tensor(positions)
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=kept, use_cache=False).logits
    rows = torch.tensor([row for row, _, _ in wanted])
    columns = torch.tensor([column[position] for _, position, _ in wanted])
    return F.cross_entropy(logits[rows, columns], torch.tensor([token for _, _, token in wanted]))


@torch.no_grad()
def evaluate(base, prompt, task, rows, batch_size):
    """-> accuracy, mean over label tokens of the true labels' cross-entropy"""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    correct, nats, tokens = 0, 0.0, 0
    for start in range(0, len(order), batch_size):
        batch = [rows[i] for i in order[start : start + batch_size]]
        scores = label_scores(base, prompt, task, [context for context, _ in batch])  # [B, C]
        true = torch.tensor([label for _, label in batch])
        correct += (scores.argmax(-1) == true).sum().item()
        nats -= scores.gather(-1, true.unsqueeze(-1)).sum().item()
        tokens += sum(len(task.labels[label]) for _, label in batch)
    return correct / len(rows), nats / tokens


def label_scores(base, prompt, task, contexts):
    """-> [B, C] log-likelihoods. Where every label has one token, one pass serves all of them."""
    if all(len(label) == 1 for label in task.labels):
        log_p = rows_before_end(base, prompt, task, contexts, 1)[:, 0]
        return log_p[:, [label[0] for label in task.labels]]
    scores = []
    for label in task.labels:
        log_p = rows_before_end(base, prompt, task, [c + label[:-1] for c in contexts], len(label))
        scores.append(log_p.gather(-1, torch.tensor(label).view(1, -1, 1).expand(len(contexts), -1, 1)).sum((1, 2)))
    return torch.stack(scores, dim=-1)


def rows_before_end(base, prompt, task, sequences, count):
    """-> [B, count, V] log-probabilities at the last `count` positions of every sequence, and nowhere else."""
    ids, mask = right_padded(sequences, task.tokenizer.pad)
    embedded = base.get_input_embeddings()(ids)
    embedded = torch.cat([prompt.expand(len(sequences), -1, -1), embedded], dim=1)
    mask = torch.cat([mask.new_ones(len(sequences), len(prompt)), mask], dim=1)
    decoder = getattr(base, base.base_model_prefix)
    hidden = decoder(inputs_embeds=embedded, attention_mask=mask, use_cache=False).last_hidden_state
    ends = torch.tensor([len(prompt) + len(sequence) for sequence in sequences])
    positions = ends.unsqueeze(1) + torch.arange(-count, 0)  # [B, count]
    hidden = hidden[torch.arange(len(sequences)).unsqueeze(1), positions]
    return base.get_output_embeddings()(hidden).log_softmax(-1)


if __name__ == "__main__":
    main()
