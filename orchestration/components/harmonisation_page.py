"""HarmonisationPage: what became of every hospital's rows, as a page that a clinician reads in the Dagster UI."""

import dagster as dg
from pydantic import Field

from orchestration import catalog
from orchestration.harmonisation_page import Page

KEY = dg.AssetKey(["harmonised", "page"])


class HarmonisationPage(dg.Component, dg.Model, dg.Resolvable):
    """Shares of each fate by hospital and concept, distributions before and after conversion, the costliest unmapped items.

    Counts and distributions only, and none that fewer than `least_patients` patients stand behind.
    """

    least_patients: int = Field(default=10, ge=10, description="Cells of fewer patients are not shown.")
    concepts: int = Field(default=8, ge=1, le=20, description="How many concepts are drawn.")
    items: int = Field(default=10, ge=1, description="How many unmapped items are listed.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return dg.Definitions(assets=[page_asset(self)])


def page_asset(settings: HarmonisationPage) -> dg.AssetsDefinition:
    @dg.asset(
        key=KEY,
        group_name="harmonised",
        kinds={"markdown"},
        deps=[dg.AssetKey(["harmonised", "measurements"])],
        description=(
            "For clinicians: what share of each concept's rows was kept, rescued or quarantined in each hospital, where values "
            "lie as written and as harmonised, and which unmapped items cost most rows."
        ),
    )
    def page() -> dg.MaterializeResult:
        from ray_jobs.plots import image

        accepted = catalog.load()
        key = "harmonised/measurements"
        metadata: dict[str, object] = {"version": accepted.version(key)}
        with catalog.scratch("page") as scratch:
            files = [catalog.fetched(url, scratch) for url in accepted.files(key)]
            with Page(files, settings.least_patients) as drawn:
                figure = drawn.distributions(settings.concepts)
                if figure:
                    metadata["values_as_written_and_as_harmonised"] = dg.MetadataValue.md(
                        image(figure, "Values as written and as harmonised")
                    )
                for hospital in drawn.hospitals():
                    metadata[f"what_became_of_the_rows_of_{hospital}"] = dg.MetadataValue.md(
                        drawn.shares(hospital)
                    )
                metadata["costliest_unmapped_items"] = dg.MetadataValue.md(drawn.costliest(settings.items))
        return dg.MaterializeResult(metadata=metadata)

    return page
