"""In which group each command stands, and the examples that end its help."""

from __future__ import annotations

from typing import Any

START, LOOK, OFFERS, SERVE, MORE = "Start", "Look closer", "Offers", "Serve", "More"

# command -> its group and examples; they run, in this order, where `retailrec examples` has been run
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "examples": (START, ("retailrec examples",)),
    "demo": (START, ("retailrec demo --generated",)),
    "run": (
        START,
        (
            "retailrec run table shop --out out/shop",
            "retailrec run table till.csv --columns till.toml --out out/till",
        ),
    ),
    "recommend": (
        START,
        (
            "retailrec recommend --model out/shop --history shop --k 10 --out offers.csv",
            "retailrec recommend --model out/till --history till.csv --out offers.xlsx",
        ),
    ),
    "week": (START, ("retailrec week --config week.toml",)),
    "week status": (START, ("retailrec week status --config week.toml",)),
    "week diff": (START, ("retailrec week diff --user 17 --config week.toml",)),
    "week rollback": (START, ("retailrec week rollback --config week.toml",)),
    "watch": (
        START,
        ("retailrec watch --config week.toml", "retailrec watch --config week.toml --page watch.html"),
    ),
    "check": (LOOK, ("retailrec check shop/transactions.csv", "retailrec check --list")),
    "match": (LOOK, ("retailrec match table shop --out out/matching",)),
    "backtest": (LOOK, ("retailrec backtest table shop --folds 2 --out out/backtest",)),
    "evaluate": (
        LOOK,
        (
            "retailrec evaluate --recommendations out/shop/judged.parquet --truth bought.csv",
            "retailrec evaluate --recommendations a=theirs.csv --recommendations b=ours.csv "
            "--truth bought.csv",
        ),
    ),
    "check-leaks": (LOOK, ("retailrec check-leaks table shop",)),
    "tune": (LOOK, ("retailrec tune table shop --study out/trials --trials 2",)),
    "allocate": (
        OFFERS,
        (
            "retailrec allocate scores.csv spring.toml --items spring_items.csv",
            "retailrec allocate scores.csv spring.toml --items spring_items.csv --ledger ledger "
            "--record --time 2000-09-01 --out out/spring",
        ),
    ),
    "experiment": (OFFERS, ()),
    "uplift": (OFFERS, ()),
    "experiment plan": (OFFERS, ("retailrec experiment plan shop --effect 0.05",)),
    "experiment result": (
        OFFERS,
        ("retailrec experiment result ledger shop --campaign spring --days 28",),
    ),
    "experiment counterfactual": (
        OFFERS,
        (
            "retailrec experiment counterfactual --ledger explored.parquet --receipts shop "
            "--policy new.csv",
        ),
    ),
    "experiment impressions": (
        OFFERS,
        ("retailrec experiment impressions log.csv --policy uniform --reward click",),
    ),
    "uplift fit": (OFFERS, ("retailrec uplift fit explored.parquet shop scores.csv --out out/uplift",)),
    "serve": (SERVE, ("retailrec serve --model out/shop --store store.db",)),
    "store": (SERVE, ()),
    "store init": (SERVE, ("retailrec store init --store store.db",)),
    "store load": (SERVE, ("retailrec store load table till.csv --model out/till --store store.db",)),
    "store key add": (
        SERVE,
        ('retailrec store key add "till 7" --scopes read,write --store store.db',),
    ),
    "store key list": (SERVE, ("retailrec store key list --store store.db",)),
    "store key remove": (SERVE, ("retailrec store key remove 0f3a2b7c --store store.db",)),
    "store forget": (SERVE, ("retailrec store forget 17 --store store.db",)),
    "store forgotten": (SERVE, ("retailrec store forgotten forgotten.json --store store.db",)),
    "store recover": (SERVE, ("retailrec store recover aside/exposures.jsonl --store store.db",)),
    "store backup": (SERVE, ("retailrec store backup backup.db --store store.db",)),
    "store restore": (
        SERVE,
        ("retailrec store restore backup.db --forgotten forgotten.json --store restored.db",),
    ),
    "store compact": (SERVE, ("retailrec store compact --store store.db",)),
    "store export": (SERVE, ("retailrec store export out/store --store store.db",)),
    "simulate": (MORE, ("retailrec simulate --users 200 --weeks 30 --out supermarket",)),
    "datasets": (MORE, ("retailrec datasets", "retailrec datasets --json")),
    "features": (MORE, ("retailrec features",)),
}


def add_examples(app: Any, before: str = "") -> None:
    """Put each command of a Typer app, and of those below it, into its group, with its examples."""
    for info in app.registered_commands:
        name = before + (info.name or info.callback.__name__.replace("_", "-"))
        group, examples = COMMANDS.get(name, (None, ()))
        if group is not None and not before:
            info.rich_help_panel = group
        if examples:
            lines = ["Examples:" if len(examples) > 1 else "Example:", *examples]
            info.epilog = "\n\n".join(lines)  # one below the other
    for info in app.registered_groups:
        if info.name in COMMANDS and not before:
            info.rich_help_panel = COMMANDS[info.name][0]
        add_examples(info.typer_instance, f"{before}{info.name} ")
