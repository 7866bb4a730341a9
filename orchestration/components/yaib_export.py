"""YaibExport: the ICU stays of every hospital as the files that YAIB, the ICU benchmark, reads."""

from collections.abc import Iterator
from typing import Literal

import dagster as dg
from pydantic import Field

from orchestration import exporting, hospitals
from orchestration.yaib import export as yaib_export

WHAT = (
    "A folder a task over ICU stays with dyn.parquet (48 variables an hour), sta.parquet and outc.parquet, and base with all "
    "stays. The folder is the version named in the catalog."
)


class YaibExport(dg.Component, dg.Model, dg.Resolvable):
    """`yaib/<hospital>` of every hospital."""

    deps: list[str] = Field(default=[], description="Tables of the warehouse that must be made before.")
    variant: Literal["corrected", "as_published"] = Field(
        default="corrected",
        description="corrected: a value stands in the hour in which it was known; as_published: in that of its measurement.",
    )
    memory_limit: str = "1200MB"
    threads: int = 2

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        names = hospitals.configured_names()

        @dg.multi_asset(
            name="yaib",
            specs=[
                dg.AssetSpec(
                    ["yaib", name],
                    deps=[dg.AssetKey(key.split("/")) for key in [*self.deps, f"input/{name}/patients"]],
                    description=f"Hospital {name}. {WHAT}",
                    group_name="yaib",
                    kinds={"duckdb", "parquet"},
                    skippable=True,
                )
                for name in names
            ],
            pool="warehouse",
        )
        def yaib(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            def export(root: str, run_id: str) -> dict[str, dict]:
                return yaib_export.export(root, run_id, names, self.variant, self.memory_limit, self.threads)

            yield from exporting.materialised(context.run.run_id, export, f"rows_{yaib_export.BASE}")

        return dg.Definitions(assets=[yaib])
