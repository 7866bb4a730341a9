"""MedsExport: the records of every hospital, and of all, as MEDS folders that other people's tools read."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from orchestration import catalog, hospitals, locks
from orchestration.meds import export

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
                    description=f"{'All hospitals' if name == export.ALL else f'Hospital {name}'}. {WHAT}",
                    group_name="meds",
                    kinds={"duckdb", "parquet"},
                    skippable=True,
                )
                for name in [*names, export.ALL]
            ],
            pool="warehouse",
        )
        def meds(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            root = catalog.data_root()
            try:
                with locks.night_lock(root, context.run.run_id):
                    made = export.export(root, context.run.run_id, names, self.memory_limit, self.threads)
            except catalog.CatalogError as error:
                raise dg.Failure(str(error), allow_retries=False) from None
            for key, counts in made.items():
                version = catalog.load(root).version(key)
                yield dg.MaterializeResult(
                    key.split("/"),
                    metadata={**counts, "dagster/row_count": counts["rows"], "version": version},
                    data_version=dg.DataVersion(version),
                )

        return dg.Definitions(assets=[meds])
