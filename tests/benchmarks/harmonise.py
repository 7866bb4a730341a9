"""Raw readings to the hourly grid, in CPU seconds: the night's own dbt model against pandas a stay and textbook SQL.

    python -m tests.benchmarks.harmonise                            # both ratios, then growth from 5 M to 50 M rows
    python -m tests.benchmarks.harmonise --rows 100000 --pairs 1 --grow      # small: a few minutes

All sides read the same generated Parquet of the input layer (300 items, 48 mapped, mixed units, duplicates, implausible
values) and end with value, n_obs and age_h of every mapped concept in every hour of every ICU stay, which is compared first.
Ours is `dbt build --select +icu_hourly` as the night runs it, bucket by bucket, without its tests. The ratios count what
the rows cost: CPU seconds less those of the same command on next to no rows (`start_cpu_s`: imports, dbt's start).
The fates table is timed apart. Peak memory is the largest resident set of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import duckdb

from orchestration import dbt, feature_contracts
from tests.benchmarks.hourly_grid import sides
from tests.benchmarks.hourly_grid.generate import ROWS_PER_STAY, buckets_of, generate, mapped_concepts

SIDES = ("ours", "pandas", "textbook", "fates")


def cost(root: str, side: str, out: Path) -> dict[str, float]:
    """CPU seconds (children included) and peak memory of one side in a process of its own, which leaves its grid in `out`."""
    out.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.harmonise",
        "--root",
        root,
        "--side",
        side,
        "--out",
        str(out),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{side} failed")
    return {"cpu_s": used.ru_utime + used.ru_stime, "peak_gb": used.ru_maxrss / 2**20}


def start_cost(root: str, side: str, outs: Path) -> float:
    """CPU seconds of a side on next to no rows: the median of three, once dbt has parsed the project."""
    dbt.target()
    return median(cost(root, side, outs / f"start-{side}-{run}")["cpu_s"] for run in range(3))


def differing_rows(outs: dict[str, Path]) -> int:
    """Rows of the three grids that have no partner in another, or another cell there (beyond the ninth digit)."""
    differing, rows = 0, 0
    same = []
    for concept in mapped_concepts():
        name, column = concept["concept"], feature_contracts.column_name(concept["concept"], concept["unit"])
        for mine, other in ((column, f"{name}_value"), (f"{name}_n_obs",) * 2, (f"{name}_age_h",) * 2):
            a, b = f"ours.{mine}", f"theirs.{other}"
            same.append(
                f"coalesce(abs({a} - {b}) <= 1e-9 * greatest(1, abs({a})), ({a} is null) = ({b} is null))"
            )
    others = {
        "textbook": f"'{outs['textbook'] / 'textbook.duckdb'}'",
        "pandas": f"'{outs['pandas'] / 'wide.parquet'}'",
    }
    for side, source in others.items():
        for database in sorted(outs["ours"].glob(f"*/{dbt.DATABASE}")):
            with duckdb.connect(str(database), read_only=True) as connection:
                if side == "textbook":
                    connection.execute(f"attach {source} as textbook (read_only)")
                theirs = "textbook.wide" if side == "textbook" else source
                [(mine, equal)] = connection.execute(
                    f"select count(*), count(*) filter (where theirs.stay_id is not null and {' and '.join(same)}) "
                    f"from features.icu_hourly as ours left join {theirs} as theirs "
                    "on ours.stay_id = theirs.stay_id and ours.hour = theirs.hour"
                ).fetchall()
                [(all_theirs,)] = connection.execute(f"select count(*) from {theirs}").fetchall()
                differing += mine - equal
                rows += mine
        differing += abs(rows - all_theirs)
        rows = 0
    return differing


def compare(rows: int, pairs: int) -> dict:
    """Both ratios: the median over alternating runs of CPU seconds less those that next to no rows cost."""
    with tempfile.TemporaryDirectory() as folder:
        root, tiny, outs = f"{folder}/data", f"{folder}/tiny", Path(folder) / "outs"
        generate(root, rows)
        generate(tiny, ROWS_PER_STAY)
        start = {side: start_cost(tiny, side, outs) for side in SIDES}
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for pair in range(pairs):
            for side in SIDES if pair % 2 == 0 else reversed(SIDES):
                runs[side].append(cost(root, side, outs / f"{pair}-{side}"))
            if pair == 0 and (differing := differing_rows({s: outs / f"0-{s}" for s in SIDES})):
                raise SystemExit(f"the grids differ in {differing} rows; the times mean nothing")
        shares = model_shares(outs / f"{pairs - 1}-ours")
    gross = {side: [run["cpu_s"] for run in runs[side]] for side in SIDES}
    net = {side: [cpu - start[side] for cpu in gross[side]] for side in SIDES}
    return {
        "rows": rows,
        "pairs": pairs,
        "ratio_vs_pandas": ratio(net, "pandas"),
        "ratio_vs_sql": ratio(net, "textbook"),
        "ratio_vs_pandas_with_start": ratio(gross, "pandas"),
        "ratio_vs_sql_with_start": ratio(gross, "textbook"),
        "cpu_s": {side: round(median(net[side]), 2) for side in SIDES},
        "start_cpu_s": {side: round(start[side], 2) for side in SIDES},
        "peak_gb": {side: round(max(run["peak_gb"] for run in runs[side]), 2) for side in SIDES},
        "share_of_ours": shares,
    }


def model_shares(out: Path) -> dict[str, float]:
    """Share of each model in the time that dbt spent on models in one run of ours, the largest first."""
    seconds = json.loads((out / "seconds.json").read_text())
    largest = sorted(seconds.items(), key=lambda item: -item[1])[:8]
    return {name: round(spent / sum(seconds.values()), 3) for name, spent in largest}


def ratio(cpu: dict[str, list[float]], side: str) -> float:
    """How many times ours the other side takes: the median over the pairs."""
    return round(median(theirs / ours for theirs, ours in zip(cpu[side], cpu["ours"], strict=True)), 2)


def grow(sizes: list[int]) -> dict:
    """CPU microseconds a row and peak memory of ours at each size.

    What the first bucket and each further one cost without rows is taken off; `..._with_start` keeps it.
    ratio_growth: CPU a row at the last size by that at the first; 1.1 is 10 % more.
    """
    figures, few = {}, 4
    with tempfile.TemporaryDirectory() as folder:
        generate(f"{folder}/tiny", ROWS_PER_STAY)
        generate(f"{folder}/few", ROWS_PER_STAY, few)
        first = start_cost(f"{folder}/tiny", "ours", Path(folder) / "one")
        further = (start_cost(f"{folder}/few", "ours", Path(folder) / "few-outs") - first) / (few - 1)
        for rows in sizes:
            generate(f"{folder}/{rows}", rows)
            run = cost(f"{folder}/{rows}", "ours", Path(folder) / f"out-{rows}")
            buckets = buckets_of(rows)
            net = run["cpu_s"] - first - further * (buckets - 1)
            figures[str(rows)] = {
                "cpu_s": round(run["cpu_s"], 1),
                "cpu_us_a_row": round(net / rows * 1e6, 3),
                "cpu_us_a_row_with_start": round(run["cpu_s"] / rows * 1e6, 3),
                "buckets": buckets,
                "peak_gb": round(run["peak_gb"], 2),
            }
            shutil.rmtree(f"{folder}/{rows}")
            shutil.rmtree(f"{folder}/out-{rows}")
    last, least = figures[str(sizes[-1])], figures[str(sizes[0])]
    return {
        "sizes": figures,
        "first_bucket_start_cpu_s": round(first, 2),
        "further_bucket_start_cpu_s": round(further, 2),
        "ratio_growth": round(last["cpu_us_a_row"] / least["cpu_us_a_row"], 3),
        "ratio_growth_with_start": round(
            last["cpu_us_a_row_with_start"] / least["cpu_us_a_row_with_start"], 3
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=6_000_000, help="of the comparison; 0 leaves it out")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--grow", type=int, nargs="*", default=[5_000_000, 50_000_000], help="sizes; none leaves it out"
    )
    parser.add_argument("--root", help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        getattr(sides, arguments.side)(arguments.root, arguments.out)
        return
    figures = compare(arguments.rows, arguments.pairs) if arguments.rows else {}
    print(json.dumps(figures | (grow(arguments.grow) if arguments.grow else {})))


if __name__ == "__main__":
    main()
