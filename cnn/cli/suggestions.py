"""What somebody who comes from another program may have meant by a flag, a command or a value."""

from collections.abc import Iterable, Sequence

from backends.text import nearest

# ours, and what it is called elsewhere; without the dashes
FLAGS = {
    "batch-size": "b bs batch batchsize minibatch train-batch-size batch-sizes",
    "bias-rate": "bias-lr bias-learning-rate",
    "classes": "num-classes n-classes labels",
    "config": "c cfg config-file settings",
    "data": "d dataset data-path data-dir data-root datadir train-data train input",
    "device cpu": "cpu no-cuda no-gpu cpu-only",
    "device cuda": "cuda gpu gpus use-cuda use-gpu nvidia",
    "dry-run": "dryrun plan simulate",
    "dtype": "precision float type fp double amp mixed-precision",
    "dtype bfloat16": "bf16 bfloat16",
    "dtype float16": "fp16 float16 half",
    "dtype float32": "fp32 float32 single",
    "dtype float64": "fp64 float64 double",
    "entries": "samples",
    "epochs": "e epoch n-epochs num-epochs nb-epochs max-epochs num-train-epochs iterations iters",
    "input-shape": "image-size img-size input-size shape size",
    "kernels": "backend kernel",
    "learning-rate": "l lr rate eta alpha step-size base-lr",
    "model": "m arch architecture net network",
    "momentum": "beta mom",
    "optimizer": "opt optim optimiser solver",
    "optimizer-options": "betas optimizer-args optimizer-kwargs opt-args",
    "out": "o output output-dir outdir out-dir save-dir logdir log-dir run-dir name save-path workdir",
    "per-class": "limit subset max-samples num-samples samples",
    "plot": "draw figure chart",
    "recipe": "preset",
    "resume": "r checkpoint ckpt continue restart load restore resume-from",
    "rounds": "repeat repeats repetitions runs n",
    "save": "o out output json-file",
    "schedule": "sched scheduler lr-scheduler lr-schedule decay",
    "seed": "s random-seed manual-seed random-state",
    "show": "verbose v display",
    "threads": "j jobs n-jobs workers num-workers num-threads nthreads cores cpus",
    "top": "k topk top-k",
    "validation": "val val-split validation-split valid val-size val-fraction",
    "warmup": "warm-up warmup-ratio warmup-epochs warmup-steps",
    "weight-decay": "wd l2 decay weight-penalty",
    "weights": "checkpoint ckpt",
    "whiten": "whitening zca",
    "json": "as-json format-json machine",
    "version": "v ver",
}
COMMANDS = {
    "--help": "help man usage",
    "--version": "version",
    "compare": "bench benchmark time timing speed profile",
    "evaluate": "eval test validate val valid score accuracy",
    "export": "convert save onnx to-onnx",
    "gradcheck": "gradient gradients grad check-gradients gradient-check",
    "import": "load from-pytorch torch pytorch",
    "info": "env environment devices device system doctor gpus about",
    "predict": "infer inference classify recognize detect run",
    "report": "plot draw visualize visualise show curves",
    "runs": "list ls history leaderboard rank experiments",
    "selftest": "check verify self-test",
    "summary": "describe model models layers print architecture",
    "train --resume RUN": "resume continue",
    "train": "fit learn start training",
}


def flag(given: str, known: Iterable[str]) -> str | None:
    """The flag that ``given``, with or without its dashes, may stand for, among those ``known``."""
    names = [name.removeprefix("--") for name in known if name.startswith("--")]
    plain = given.lstrip("-").lower().replace("_", "-")
    elsewhere = [
        ours for ours, theirs in FLAGS.items() if plain in theirs.split() and ours.split()[0] in names
    ]
    found = plain if plain in names else elsewhere[0] if elsewhere else _begun(plain, names)
    found = found or nearest(plain, names)
    return f"--{found}" if found else None


def command(given: str, known: Sequence[str]) -> str | None:
    """The call of ``cnn`` that ``given`` may stand for."""
    plain = given.lower().replace("_", "-")
    elsewhere = (ours for ours, theirs in COMMANDS.items() if plain in theirs.split())
    found = (
        plain if plain in known else next(elsewhere, None) or _begun(plain, known) or nearest(plain, known)
    )
    return f"cnn {found}" if found else None


def _begun(text: str, names: Sequence[str]) -> str | None:
    """The only name that begins with ``text``."""
    begun = [name for name in names if len(text) > 1 and name.startswith(text)]
    return begun[0] if len(begun) == 1 else None
