"""MedsExport: the records of every hospital, and of all, as MEDS folders that other people's tools read."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from orchestration import exporting, hospitals
from orchestration.meds import export as meds_export

WHAT = (
    "In the Medical Event Data Standard: data shards by split, codes with descriptions and parents, splits, labels. The "
    "folder is the version named in the catalog."
)


class MedsExport(dg.Component, dg.Model, dg.Resolvable):
    """`meds/<hospital>` of every hospital and `meds/all`. What the validator faults is not published."""

    deps: list[str] = Field(default=[], description="Tables of the warehouse that must be made before.")
    memory_limit: str = "1200MB"
    threads: int = 2

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        names = hospitals.configured_names()
        deps = [*self.deps, *(f"input/{name}/patients" for name in names)]

        @dg.multi_asset(
            name="meds",
            specs=[
                dg.AssetSpec(
                    ["meds", name],
                    deps=[dg.AssetKey(key.split("/")) for key in deps],
                    description=f"{'All hospitals' if name == meds_export.ALL else f'Hospital {name}'}. {WHAT}",
                    group_name="meds",
                    kinds={"duckdb", "parquet"},
                    skippable=True,
                )
                for name in [*names, meds_export.ALL]
            ],
            pool="warehouse",
        )
        def meds(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            def export(root: str, run_id: str) -> dict[str, dict]:
                return meds_export.export(root, run_id, names, self.memory_limit, self.threads)

            yield from exporting.materialised(context.run.run_id, export, "rows")

        return dg.Definitions(assets=[meds])
