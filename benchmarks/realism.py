"""Generated receipts beside real ones, as a table for docs/simulate.md.

make bench-realism
"""

from __future__ import annotations

from machine import data_folder

from retailrec.datasets import load_dataset
from retailrec.report.summary import at_a_glance
from retailrec.simulator.shop import data_of, preset_shop


def main() -> None:
    columns = {
        "generated complete-journey": at_a_glance(data_of(preset_shop("complete-journey"))),
        "generated x5 (3,000 clients)": at_a_glance(data_of(preset_shop("x5", users=3000))),
        "Complete Journey, weeks 96-98": at_a_glance(
            load_dataset("complete-journey", data_folder("complete_journey"))
        ),
        "X5 RetailHero, 101 clients": at_a_glance(
            load_dataset("x5-retailhero", data_folder("x5_retailhero"))
        ),
        "Online Retail II": at_a_glance(load_dataset("online-retail", data_folder("online_retail_ii"))),
        "Ta-Feng": at_a_glance(load_dataset("ta-feng", data_folder("tafeng_nbr"))),
    }
    names = list(next(iter(columns.values())))
    print("| | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name in names:
        print(f"| {name} | " + " | ".join(text(c[name]) for c in columns.values()) + " |")


def text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(f"{v:.2f}" for v in value)
    if isinstance(value, float):
        return f"{value:.3f}" if value < 10 else f"{value:.1f}"
    return "-" if value is None else f"{value:,}"


if __name__ == "__main__":
    main()
