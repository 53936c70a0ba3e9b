"""Step 3: train a cache-aware streaming FastConformer-CTC on prepared manifests."""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

from recipes.corpus import RATE
from recipes.digits.words import DIGITS
from recipes.quiet import hush

# Frames of 80 ms: 5.6 s of past, and 480, 80 or 0 ms of future. The first is the default.
LOOKAHEADS = [[70, 6], [70, 1], [70, 0]]
WIDTH = 96
CONVOLUTIONS = 32
LAYERS = 4


def tokenizer(folder: Path, seed: int) -> Path:
    """Train a SentencePiece tokenizer whose pieces are the ten words."""
    from sentencepiece import SentencePieceTrainer

    rng = random.Random(seed)
    lines = [" ".join(rng.choices(DIGITS, k=rng.randint(1, 8))) for _ in range(2000)]
    folder.mkdir(parents=True, exist_ok=True)
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "tokenizer"),
        model_type="word",
        vocab_size=len(DIGITS) + 1,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    (folder / "vocab.txt").write_text("\n".join(DIGITS) + "\n", encoding="utf-8")
    return folder


def encoder() -> dict[str, Any]:
    """Describe a FastConformer encoder that never looks further ahead than its chunk."""
    return {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": 80,
        "feat_out": -1,
        "n_layers": LAYERS,
        "d_model": WIDTH,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": CONVOLUTIONS,
        "causal_downsampling": True,
        "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos",
        "n_heads": 4,
        "att_context_size": LOOKAHEADS,
        "att_context_style": "chunked_limited",
        "xscaling": False,
        "untie_biases": True,
        "pos_emb_max_len": 1000,
        "conv_kernel_size": 9,
        "conv_norm_type": "batch_norm",
        "conv_context_size": "causal",
        "dropout": 0.03,
        "dropout_pre_encoder": 0.0,
        "dropout_emb": 0.0,
        "dropout_att": 0.03,
    }


def model_config(tokens: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Describe the whole model, as NeMo reads it."""
    return {
        "sample_rate": RATE,
        "log_prediction": False,
        "ctc_reduction": "mean_volume",
        "skip_nan_grad": False,
        "tokenizer": {"dir": str(tokens), "type": "bpe"},
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": RATE,
            "normalize": "NA",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": 80,
            "n_fft": 512,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
        },
        "spec_augment": {
            "_target_": "nemo.collections.asr.modules.SpectrogramAugmentation",
            "freq_masks": 2,
            "freq_width": 10,
            "time_masks": 1,
            "time_width": 4,
        },
        "encoder": encoder(),
        "decoder": {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
            "feat_in": WIDTH,
            "num_classes": -1,
            "vocabulary": [],
        },
        "decoding": {"strategy": "greedy_batch"},
        "train_ds": batches(options),
        "optim": {
            "name": "adamw",
            "lr": options.learning_rate,
            "betas": [0.9, 0.98],
            "weight_decay": 1e-3,
            "sched": {
                "name": "CosineAnnealing",
                "warmup_steps": options.steps // 20,
                "max_steps": options.steps,
                "min_lr": 1e-5,
            },
        },
    }


def batches(options: argparse.Namespace) -> dict[str, Any]:
    """Describe batches of alike long utterances, drawn for ever in random order."""
    return {
        "use_lhotse": True,
        "manifest_filepath": str(options.manifest),
        "sample_rate": RATE,
        "batch_duration": options.batch_seconds,
        "max_duration": 20.0,
        "use_bucketing": True,
        "num_buckets": 8,
        "bucket_buffer_size": 4000,
        "shuffle_buffer_size": 4000,
        "shuffle": True,
        "seed": options.seed,
        "shard_seed": options.seed,
        "num_workers": options.workers,
        "pin_memory": False,
    }


def fit(options: argparse.Namespace) -> None:
    """Train from nothing and write the `.nemo` file."""
    import lightning.pytorch as lightning
    import torch
    from nemo.collections.asr.models import EncDecCTCModelBPE
    from omegaconf import OmegaConf

    torch.set_num_threads(options.threads)
    lightning.seed_everything(options.seed, verbose=False)
    tokens = tokenizer(options.out.parent / "tokenizer", options.seed)
    trainer = lightning.Trainer(
        accelerator=options.accelerator,
        devices=1,
        max_steps=options.steps,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        callbacks=[progress(lightning.Callback, every=50)],
    )
    config = OmegaConf.create(model_config(tokens, options))
    model = EncDecCTCModelBPE(cfg=config, trainer=trainer)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")
    trainer.fit(model)
    save(model, options.out)


def save(model: Any, out: Path) -> None:
    """Write the `.nemo` file without the paths of this machine."""
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(model.cfg)
    assert isinstance(config, dict)
    config["train_ds"] = {"manifest_filepath": None}
    config["validation_ds"] = {"manifest_filepath": None}  # `transcribe` looks for it
    config["tokenizer"]["dir"] = ""
    model.cfg = OmegaConf.create(config)
    model.save_to(str(out))


def progress(base: Any, every: int) -> Any:
    """Make a Lightning callback that prints the mean loss now and then."""

    class Progress(base):  # type: ignore[misc]  # Lightning has no types here
        """Collects losses."""

        losses: list[float]
        started: float

        def on_train_start(self, *_: object) -> None:
            """Begin to count."""
            self.losses, self.started = [], time.monotonic()

        def on_train_batch_end(self, trainer: Any, _: Any, outputs: Any, *__: object) -> None:
            """Print the mean loss and the time of every so many steps."""
            self.losses.append(float(outputs["loss"]))
            if len(self.losses) == every:
                seconds = time.monotonic() - self.started
                mean = sum(self.losses) / every
                print(f"step {trainer.global_step}: loss {mean:.3f}, {seconds:.0f} s", flush=True)
                self.losses.clear()

    return Progress()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path, help="what to train on")
    parser.add_argument("out", type=Path, help="the .nemo file to write")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-seconds", type=float, default=200.0, help="audio in a batch")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes that read audio")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Train."""
    options = parse()
    hush()
    fit(options)


if __name__ == "__main__":
    main()
