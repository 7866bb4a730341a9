"""The page of the harmonisation that a clinician reads: what became of each concept's rows, and where its values lie.

Counts and distributions only. What fewer than `least` patients stand behind is not shown; shares are whole per cent of
rows rounded to two digits, so that no hidden count can be worked out from the shown ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import duckdb

from orchestration import dictionary
from orchestration.expressions import literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FATES = ("kept", "rescued", "quarantined")
BINS = 24
HIDDEN = "few"
WHY = {
    "implausible": "no living patient has such a value",
    "unknown_unit": "nobody knows the unit as it is spelled",
    "no_unit": "no unit on the row nor for the item",
    "inconvertible": "its unit cannot reach the concept's",
    "not_a_number": "text where a number belongs",
    "no_value": "nothing written",
}
_NUMBERS = """
select hospital, patient_id, concept, unit, unit_raw, value,
    coalesce(try_cast(value_raw as double), try_cast(regexp_extract(value_raw, '[-0-9.]+') as double)) as as_written
from measured where fate in ('kept', 'rescued')
"""


class Page:
    """The tables and plots over the published files of harmonised/measurements."""

    def __init__(self, files: Sequence[str], least: int = 10):
        self.least = least
        self._labels = {
            row["concept"]: row["label"] for row in dictionary.read_csv(dictionary.SEEDS / "concepts.csv")
        }
        listed = ", ".join(map(literal, files))
        self._connection = duckdb.connect(config={"memory_limit": "1GB", "preserve_insertion_order": False})
        self._connection.execute(
            f"create view measured as from read_parquet([{listed}], hive_partitioning = false)"
        )

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _rows(self, sql: str) -> list[tuple]:
        return self._connection.execute(sql).fetchall()

    def hospitals(self) -> list[str]:
        return [row[0] for row in self._rows("select distinct hospital from measured order by all")]

    def shares(self, hospital: str) -> str:
        """A table, one line a concept: its rows, its patients, the share of each fate, why rows were quarantined. Those of
        which most rows are quarantined come first."""
        cells: dict[str, dict[str, tuple[int, int]]] = {}
        counted = self._rows(
            f"""select concept, if(grouping(fate) = 1, 'all', fate), count(*), count(distinct patient_id)
                from measured where hospital = {literal(hospital)} and concept is not null and fate <> 'duplicate'
                group by grouping sets ((concept), (concept, fate))"""
        )
        for concept, fate, rows, patients in counted:
            cells.setdefault(concept, {})[fate] = (rows, patients)
        why = self._reasons(hospital)
        lines = [
            "| concept | rows | patients | kept | rescued | quarantined | most often because |",
            "|---|--:|--:|--:|--:|--:|---|",
        ]
        left_out = 0
        for concept, fates in sorted(
            cells.items(), key=lambda c: (-self._to_mend(c[1]), -c[1]["all"][0], c[0])
        ):
            rows, patients = fates["all"]
            if patients < self.least:
                left_out += 1
                continue
            shown = [self._share(fates.get(fate, (0, 0)), rows) for fate in FATES]
            lines.append(
                f"| {self._labels.get(concept, concept)} | {_two_digits(rows):,} | {_two_digits(patients):,} "
                f"| {' | '.join(shown)} | {why.get(concept, '')} |"
            )
        hidden = f"{HIDDEN}: fewer than {self.least} patients. Left out for that: {left_out} of {len(cells)} concepts."
        return "\n".join([*lines, "", hidden])

    def _to_mend(self, fates: dict[str, tuple[int, int]]) -> int:
        rows, patients = fates.get("quarantined", (0, 0))
        return rows if patients >= self.least else 0

    def _share(self, cell: tuple[int, int], of: int) -> str:
        rows, patients = cell
        if rows == 0:
            return "0"
        if patients < self.least:
            return HIDDEN
        share = round(100 * rows / of)
        return "< 1 %" if share == 0 else "> 99 %" if share == 100 and rows < of else f"{share} %"

    def _reasons(self, hospital: str) -> dict[str, str]:
        """The commonest reason of quarantine a concept, if enough patients stand behind it."""
        found = self._rows(
            f"""select concept, arg_max(fate_reason, rows) from (
                    select concept, fate_reason, count(*) as rows from measured
                    where hospital = {literal(hospital)} and fate = 'quarantined'
                    group by all having count(distinct patient_id) >= {self.least})
                group by concept"""
        )
        return {concept: WHY.get(reason, reason) for concept, reason in found}

    def costliest(self, count: int = 10) -> str:
        """The items that nobody has decided about and that hold the most rows."""
        found = self._rows(
            f"""select hospital, coalesce(label, code), source_table, count(*) as rows, count(distinct patient_id) as patients
                from measured where fate = 'unmapped' group by all having patients >= {self.least}
                order by rows desc, 1, 2, 3 limit {count}"""
        )
        if not found:
            return f"No item of {self.least} patients or more waits for a decision."
        lines = ["| hospital | item | found in | rows | patients |", "|---|---|---|--:|--:|"]
        return "\n".join(
            lines
            + [
                f"| {hospital} | {_cell(item)} | {_cell(table)} | {_two_digits(rows):,} | {_two_digits(patients):,} |"
                for hospital, item, table, rows, patients in found
            ]
        )

    def distributions(self, count: int = 8) -> Figure | None:
        """Side by side for each concept: numbers as written, and values in the concept's unit; a line a hospital.

        First come the concepts of which harmonising changes most numbers. None if no concept has patients enough.
        """
        from ray_jobs.plots import figure

        chosen = self._chosen(count)
        if not chosen:
            return None
        drawn = figure(9, 1.9 * len(chosen))
        grid = drawn.subplots(len(chosen), 2, squeeze=False)
        colours = {h: f"C{n % 10}" for n, h in enumerate(self.hospitals())}
        for (concept, unit, written), (before, after) in zip(chosen, grid, strict=True):
            for axes, column, label in ((before, "as_written", written), (after, "value", unit)):
                for hospital, points in self._histogram(concept, column).items():
                    axes.stairs(*points, label=hospital, color=colours[hospital], linewidth=1.3)
                axes.set_xlabel(label, fontsize="small")
                axes.set_yticks([])
                axes.spines[["top", "right", "left"]].set_visible(False)
                axes.tick_params(labelsize="small")
            before.set_title(
                f"{self._labels.get(concept, concept)}, as written", fontsize="medium", loc="left"
            )
            after.set_title("as harmonised", fontsize="medium", loc="left")
        grid[0][0].legend(fontsize="small", frameon=False)
        return drawn

    def _chosen(self, count: int) -> list[tuple[str, str, str]]:
        """Concept, its unit, and the units as written; first the concepts of which harmonising changes most numbers."""
        return self._rows(
            f"""with usable as (
                    select concept, unit, arg_max(coalesce(unit_raw, 'unit of the item'), value) as spelling, count(*) as rows,
                        count(*) filter (abs(value - as_written) > 0.01 * abs(value)) as changed
                    from ({_NUMBERS}) group by concept, unit, lower(unit_raw)
                    having count(distinct patient_id) >= {self.least})
                select concept, unit, string_agg(spelling, ', ' order by rows desc, spelling)
                from usable group by concept, unit order by sum(changed) desc, sum(rows) desc, concept limit {count}"""
        )

    def _histogram(self, concept: str, column: str) -> dict[str, tuple[list[float], list[float]]]:
        """Hospital to the share of its rows in each part, and the edges; a part with too few patients is empty."""
        numbers = f"({_NUMBERS} and concept = {literal(concept)})"
        ((low, high, whole),) = self._rows(
            f"""select quantile_cont({column}, 0.01), quantile_cont({column}, 0.97),
                count(*) filter ({column} <> floor({column})) < 0.01 * count(*) from {numbers}"""
        )
        low, high = float(f"{low:.2g}"), float(f"{high:.2g}")
        width = max((high - low) / BINS, 1e-9)
        if whole:  # whole numbers fall into parts of whole width, or the shape is a comb
            width, low = math.ceil(width), math.floor(low) - 0.5
        bins = math.floor((high - low) / width) + 1
        counted = self._rows(
            f"""select hospital, cast(floor(({column} - {low}) / {width}) as integer) as bin, count(*)
                from {numbers} where bin >= 0 and bin < {bins}
                group by all having count(distinct patient_id) >= {self.least}"""
        )
        shapes: dict[str, list[float]] = {}
        for hospital, part, rows in sorted(counted):
            shapes.setdefault(hospital, [0.0] * bins)[part] += rows
        edges = [low + n * width for n in range(bins + 1)]
        return {h: ([rows / sum(shape) for rows in shape], edges) for h, shape in shapes.items()}


def _two_digits(number: int) -> int:
    return int(float(f"{number:.2g}"))


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:60]
