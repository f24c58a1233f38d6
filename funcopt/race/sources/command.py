"""`python -m funcopt race sources SETTING DATA`: one of the sources' own runs, on data that lie in the folder DATA."""

import argparse
import json
from pathlib import Path

import torch

from funcopt.race.report import plain, versions, write_json
from funcopt.race.sources.images import load
from funcopt.race.sources.settings import OPTIMIZERS, SETTINGS
from funcopt.race.sources.training import train
from funcopt.race.statistics import paired, spread
from funcopt.race.tables import align

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("setting", metavar="SETTING", help=f"one of: {', '.join(SETTINGS)}")
    parser.add_argument("data", type=Path, metavar="DATA", help="the folder that torchvision would be given as root; nothing is downloaded")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each optimizer (default: %(default)s)")
    parser.add_argument("--epochs", type=int, metavar="N", help="in place of the source's")
    parser.add_argument(
        "--optimizers",
        nargs="+",
        metavar="NAME",
        help=f"in place of the setting's, some of: {'; '.join(OPTIMIZERS)}; the first is the source's",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where results go, and from where an interrupted run goes on (default: runs/sources/SETTING)",
    )


def main(arguments: argparse.Namespace) -> int:
    if arguments.setting not in SETTINGS:
        raise ValueError(f"sources: no setting {arguments.setting!r}; there are {', '.join(SETTINGS)}")
    setting = SETTINGS[arguments.setting]
    names = arguments.optimizers or list(setting.optimizers)
    for name in names:
        if name not in OPTIMIZERS:
            raise ValueError(f"sources: no optimizer {name!r}; there are {', '.join(OPTIMIZERS)}")
    for word in ("seeds", "epochs"):
        value = getattr(arguments, word)
        if value is not None and value < 1:
            raise ValueError(f"sources: {word} must be >= 1, got {value}")
    if arguments.epochs is not None:
        setting = setting._replace(epochs=arguments.epochs)
    images = load(setting.data, arguments.data)
    path = (arguments.out or Path("runs/sources") / arguments.setting) / "results.json"
    head = plain({"setting": arguments.setting, **setting._asdict()})
    head.pop("optimizers")
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if any(content.get(key) != value for key, value in head.items()):
        content = {**head, "versions": versions(), "runs": {}}
    try:
        for name in names:
            runs = content["runs"].setdefault(name, {})
            for seed in range(arguments.seeds):
                if str(seed) not in runs:
                    runs[str(seed)] = plain(
                        train(setting, images, name, seed, torch.device(arguments.device), lambda line: print(line, flush=True))
                    )
                    write_json(path, content)
    except KeyboardInterrupt:
        print(f"sources: interrupted; what has finished is in {path}, and the same command goes on")
        raise
    print(_table(content, names, [str(seed) for seed in range(arguments.seeds)]))
    print(f"\nnot stated by the source: {setting.unstated or 'nothing that is needed'}\nall numbers: {path}")
    return 0


def _table(content: dict, names: list[str], seeds: list[str]) -> str:
    """Test accuracy of the last and of the picked epoch, and the difference to AdamW, or else to the first."""
    base = "adamw" if "adamw" in names else names[0]
    cells = [["test accuracy %", "last epoch", "picked on validation", "mean of the last ten", f"last, minus {base}, paired"]]
    for name in names:
        ends = {
            word: [100 * content["runs"][name][seed]["test"][word] for seed in seeds] for word in ("last", "picked", "mean of the last ten")
        }
        difference = paired(ends["last"], [100 * content["runs"][base][seed]["test"]["last"] for seed in seeds])
        shown = f"{difference.mean:+.2f}" + (f" [{difference.low:+.2f}, {difference.high:+.2f}]" if len(seeds) > 1 else "")
        cells.append([name, *(f"{spread(values).mean:.2f}" for values in ends.values()), "" if name == base else shown])
    return "\n".join([f"{content['setting']}: {content['epochs']} epochs, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}", *align(cells)])
