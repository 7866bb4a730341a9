"""HospitalSource: a hospital's files become the ten tables of the input layer, judged and published in one step."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from pydantic import Field

from orchestration import catalog, data_docs, drift, hospitals, ingest, input_layer, layout, suites

DESCRIPTIONS = {
    "patients": "Who the patients are, with the split of the person.",
    "visits": "Hospital visits, from admission to discharge.",
    "stays": "Stays in care units; is_icu marks intensive care.",
    "measurements": "Laboratory results, vital signs, outputs, scores and settings, as the hospital wrote them.",
    "diagnoses": "Diagnosis codes of visits, as coded by the hospital.",
    "procedures": "Procedures.",
    "medications": "Orders, infusions and administrations of drugs.",
    "microbiology": "Cultures, organisms and susceptibilities.",
    "notes": "Free-text notes.",
    "items": "The hospital's own dictionary with what each local code means here.",
}


class HospitalSource(dg.Component, dg.Model, dg.Resolvable):
    """A hospital's export at any fsspec URL (csv, csv.gz, parquet), mapped by YAML and CSV to the input layer.

    The mapping is `tables.yaml` and `items.csv` in this folder, in the layout that it extends, or both. All tables are
    accepted together; an export that is refused is held back, and the hospital's accepted version stays.
    """

    hospital: str = Field(description="Name of the hospital; the folder has the same.")
    extends: str | None = Field(default=None, description="A layout of orchestration/schemas/.")
    location: str | None = Field(
        default=None, description="Folder or fsspec URL of the export; {{ data_root }} is known."
    )
    location_env: str | None = Field(
        default=None,
        description="Environment variable that holds the location; unset, the hospital is absent.",
    )
    buckets: int = Field(
        default=1,
        description="Parts by person, of some 2 million rows each; equal in hospitals that share a person_group.",
    )
    max_rejected: float = Field(
        default=0.05,
        description="Share of a file's rows that may be rejected as broken before the export is held back.",
    )
    deps: list[str] = Field(default=[], description="Assets that write the export, such as export/north.")

    @staticmethod
    @dg.template_var
    def data_root(context: dg.ComponentLoadContext) -> str:
        return catalog.data_root()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        config = hospitals.read(self.model_dump(), Path(context.path) / "defs.yaml")
        layout.load(
            config.folder, config.extends
        )  # a mistake in the mapping stops here, before anything runs
        if config.hospital not in hospitals.configured_names():
            return dg.Definitions()
        return dg.Definitions(assets=[input_assets(config)])


def input_assets(config: hospitals.HospitalConfig) -> dg.AssetsDefinition:
    hospital = config.hospital
    first = dg.AssetKey(["input", hospital, "patients"])
    specs = [
        dg.AssetSpec(
            ["input", hospital, table],
            description=f"{DESCRIPTIONS[table]} One schema for all hospitals; this is {hospital}.",
            group_name="input",
            kinds={"duckdb", "parquet"},
            deps=[dg.AssetKey(dep.split("/")) for dep in config.deps],
            metadata={
                "dagster/column_schema": dg.TableSchema(
                    [dg.TableColumn(name, type_.lower()) for name, type_ in columns.items()]
                )
            },
        )
        for table, columns in input_layer.tables().items()
    ]
    checks = [
        dg.AssetCheckSpec(
            "no_row_is_lost",
            asset=first,
            description="Records of each raw file by a second reader = rows in the input layer + rows rejected with a reason.",
        ),
        dg.AssetCheckSpec(
            "the_export_is_accepted",
            asset=first,
            description="Tonight's export is readable and meets its expectations; if not, the accepted version stays.",
        ),
    ]
    if drift.is_judged(hospital):
        suite = suites.read_suite(suites.suite_path(drift.key(hospital, "drift")))
        checks.append(dg.AssetCheckSpec(suite.name, asset=first, description=suite.description))

    @dg.multi_asset(name=f"input__{hospital}", specs=specs, check_specs=checks)
    def input_tables(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        root = catalog.data_root()
        hospitals.require_all(catalog.load(root))
        outcome = ingest.run(config, root, context.run.run_id)
        context.log.info(outcome.line())
        for table in input_layer.tables():
            yield dg.MaterializeResult(
                asset_key=["input", hospital, table],
                metadata=_metadata(root, outcome, table),
                data_version=dg.DataVersion(outcome.version) if outcome.version else None,
            )
        yield from _checks(root, outcome, first)
        if drift.is_judged(hospital):
            yield _drift_check(outcome, first)

    return input_tables


def _metadata(root: str, outcome: ingest.Outcome, table: str) -> dict[str, object]:
    key = f"input/{outcome.hospital}/{table}"
    metadata = {
        "status": outcome.status.replace("_", " "),
        "version": outcome.version or "none",
        "dagster/row_count": outcome.rows.get(table, 0),
        "path": dg.MetadataValue.path(catalog.join(root, key)),
        "raw_files": outcome.files,
        "mended_or_left_empty": outcome.remarks.get(table, {}),
    }
    if table == "patients":
        metadata["rejected_by_reason_all_tables"] = outcome.rejected
    return metadata


def _checks(root: str, outcome: ingest.Outcome, asset: dg.AssetKey) -> Iterator[dg.AssetCheckResult]:
    lost = {"lost": "; ".join(outcome.lost)} if outcome.lost else {}
    yield dg.AssetCheckResult(
        asset_key=asset,
        check_name="no_row_is_lost",
        passed=outcome.conserved is not False,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"raw_files": outcome.files, "rejected": outcome.rejected, **lost},
    )
    failed = {key: verdict.line() for key, verdict in outcome.verdicts.items() if not verdict.passed}
    yield dg.AssetCheckResult(
        asset_key=asset,
        check_name="the_export_is_accepted",
        passed=outcome.accepted,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "status": outcome.status.replace("_", " "),
            "reason": outcome.reason or "none",
            "suites": len(outcome.verdicts),
            "refused_by": failed,
            "data_docs": dg.MetadataValue.path(catalog.join(root, "docs", "data_docs", data_docs.INDEX)),
        },
    )


def _drift_check(outcome: ingest.Outcome, asset: dg.AssetKey) -> dg.AssetCheckResult:
    key = drift.key(outcome.hospital, "drift")
    verdict = outcome.verdicts.get(key)
    metadata: dict[str, object] = {"compared_with": outcome.compared_with or "the accepted extract"}
    if verdict is None:
        metadata["compared"] = "no: nothing new" if outcome.accepted else "no: refused before"
    else:
        metadata |= verdict.metadata()
    if outcome.drifted:
        metadata["if_the_change_is_true"] = f"python -m orchestration.drift accept {outcome.hospital}"
    name = suites.read_suite(suites.suite_path(key)).name
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=verdict is None or verdict.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata=metadata,
    )
