"""Warehouse: the dbt project as assets, one step from the accepted input layer of every hospital to published tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtProject, DbtProjectComponent
from dagster_dbt.asset_utils import (
    DAGSTER_DBT_UNIQUE_ID_METADATA_KEY,
    build_dbt_specs,
    default_asset_check_fn,
)
from dagster_dbt.components.dbt_component_utils import DagsterDbtComponentTranslatorSettings
from dagster_dbt.dbt_project_manager import DbtProjectManager, NoopDbtProjectManager

from orchestration import catalog, dbt, dictionary, harmonise, hospitals, launch, locks

CHECKED = dbt.STATE.parent / "dictionary.checked"


@dataclass
class Warehouse(DbtProjectComponent):
    """dbt models as assets, run from the dbt project's own folder and never from a copy of it.

    Every source stands for `input/<hospital>/<table>` of every configured hospital, so dbt runs after all of them. The
    manifest is rebuilt whenever a file of the project has changed. All tables are published together, or none. With
    RAY_ADDRESS set, or `ray_address`, several buckets of patients are made side by side on that cluster.
    """

    translation_settings: DagsterDbtComponentTranslatorSettings = field(
        default_factory=lambda: DagsterDbtComponentTranslatorSettings(enable_code_references=False)
    )
    memory_limit: str = "1200MB"
    threads: int = 2
    ray_address: str | None = None

    @cached_property
    def _project_manager(self) -> DbtProjectManager:
        folder = self.project if isinstance(self.project, DbtProject) else self.project.get_project(None)
        folder = Path(folder.project_dir).resolve()
        return NoopDbtProjectManager(DbtProject(folder, target_path=dbt.target(folder)))

    @cached_property
    def hospitals(self) -> list[str]:
        """The hospitals whose input tables the models read: known once, and asked for at every edge of the graph."""
        return hospitals.configured_names()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        check_dictionary()
        return self.build_defs_from_state(context, None)

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        manifest = dbt.manifest(Path(self.dbt_project.project_dir))
        specs, check_specs = build_dbt_specs(
            translator=self.translator,
            manifest=manifest,
            select=self.select,
            exclude=self.exclude,
            selector=self.selector,
            project=self.dbt_project,
            io_manager_key=None,
        )

        steps = {key_of(node) for node in manifest["nodes"].values() if "step" in node["tags"]}
        specs = [spec for spec in specs if spec.key not in steps]
        check_specs = [check for check in check_specs if check.asset_key not in steps]

        @dg.multi_asset(
            name="warehouse", specs=specs, check_specs=check_specs, can_subset=True, pool="warehouse"
        )
        def warehouse(context: dg.AssetExecutionContext) -> Iterator[Any]:
            yield from self.execute(context)

        return dg.Definitions(assets=[warehouse])

    def get_asset_spec(
        self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None
    ) -> dg.AssetSpec:
        """The key is the model's place in `models/`; steps on the way are left out of the graph."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        node = manifest["nodes"].get(unique_id)
        if node is None:
            return spec
        key = key_of(node)
        return spec.replace_attributes(
            key=key,
            deps=sorted(upstream_of(manifest, node, self.hospitals)),
            group_name=key.path[0],
            kinds={"dbt", "duckdb"},
            description=node["description"],
        )

    def get_asset_check_spec(
        self,
        asset_spec: dg.AssetSpec,
        manifest: Mapping[str, Any],
        unique_id: str,
        project: DbtProject | None,
    ) -> dg.AssetCheckSpec | None:
        spec = default_asset_check_fn(manifest, self.translator, asset_spec.key, unique_id, project)
        if spec is None:
            return None
        node = manifest["nodes"][unique_id]
        return dg.AssetCheckSpec(
            spec.name,
            asset=spec.asset_key,
            description=node["description"] or None,
            blocking=spec.blocking,
            metadata={DAGSTER_DBT_UNIQUE_ID_METADATA_KEY: unique_id},
        )

    def execute(self, context: dg.AssetExecutionContext, dbt_resource: object = None) -> Iterator[Any]:
        """Harmonise and publish, or reuse; yields what was selected. Raises dg.Failure with one line."""
        root = catalog.data_root()
        try:
            hospitals.require_all(catalog.load(root))
            with locks.night_lock(root, context.run_id):
                outcome = harmonise.harmonise(
                    root,
                    context.run_id,
                    hospitals.configured_names(),
                    self.memory_limit,
                    self.threads,
                    Path(self.dbt_project.project_dir),
                    launch.address_of(self.ray_address),
                )
        except catalog.GateRefused as error:
            lines = {
                key: str(verdict.line()) for key, verdict in error.verdicts.items() if not verdict.passed
            }
            raise dg.Failure(str(error), metadata=lines, allow_retries=False) from None
        except (catalog.CatalogError, dbt.DbtError, dictionary.DictionaryError, *launch.FAULTS) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        buckets = f"{len(outcome.made)} buckets made, {len(outcome.unchanged)} unchanged"
        said = "reused, nothing new" if outcome.reused else f"{buckets}, in {outcome.seconds:.0f} s"
        context.log.info(f"warehouse version {outcome.version}: {said}")
        checks = self._check_results(context, outcome)
        if outcome.failed_tests:
            yield from checks
            names = ", ".join(sorted({test.name for test in outcome.failed_tests}))
            raise dg.Failure(f"nothing published, dbt tests failed: {names}", allow_retries=False)
        yield from self._materializations(context, root, outcome, checks)

    def _check_results(
        self, context: dg.AssetExecutionContext, outcome: harmonise.Outcome
    ) -> list[dg.AssetCheckResult]:
        ran: dict[str, list[dbt.NodeResult]] = {}
        for result in outcome.results:
            ran.setdefault(result.unique_id, []).append(result)
        checks = []
        for spec in context.assets_def.check_specs:
            results = ran.get(spec.metadata[DAGSTER_DBT_UNIQUE_ID_METADATA_KEY], [])
            if spec.key not in context.selected_asset_check_keys or not (
                results or outcome.reused or outcome.unchanged
            ):
                continue
            severity = dg.AssetCheckSeverity.ERROR if spec.blocking else dg.AssetCheckSeverity.WARN
            checks.append(
                dg.AssetCheckResult(
                    asset_key=spec.asset_key,
                    check_name=spec.name,
                    passed=all(r.status == "pass" for r in results),
                    severity=severity,
                    metadata={"rows_found": sum(r.failures for r in results), "reused": not results},
                )
            )
        return checks

    def _materializations(
        self,
        context: dg.AssetExecutionContext,
        root: str,
        outcome: harmonise.Outcome,
        checks: list[dg.AssetCheckResult],
    ) -> Iterator[dg.MaterializeResult]:
        accepted = catalog.load(root)
        order = TopologicalSorter({s.key: {d.asset_key for d in s.deps} for s in context.assets_def.specs})
        for key in order.static_order():
            if key not in context.selected_asset_keys:
                continue
            name = "/".join(key.path)
            metadata: dict[str, Any] = {"reused": outcome.reused}
            if name in outcome.rows:
                metadata |= {
                    "dagster/row_count": outcome.rows[name],
                    "path": dg.MetadataValue.path(catalog.join(root, name)),
                    "version": accepted.version(name),
                }
            if name in ("harmonised/measurements", "harmonised/fates", "harmonised/unmapped"):
                metadata |= fates_metadata(outcome.fates)
            yield dg.MaterializeResult(
                asset_key=key,
                metadata=metadata,
                data_version=dg.DataVersion(outcome.version),
                check_results=[c for c in checks if c.asset_key == key],
            )


def key_of(node: Mapping[str, Any]) -> dg.AssetKey:
    """models/harmonised/events.sql is harmonised/events; seeds/units.csv is dictionary/units."""
    path = node["fqn"][1:]
    return dg.AssetKey(["dictionary", *path] if node["resource_type"] == "seed" else path)


def upstream_of(
    manifest: Mapping[str, Any], node: Mapping[str, Any], names: Sequence[str]
) -> set[dg.AssetKey]:
    """Keys of what a node reads, through steps: a source is the input table of every hospital in `names`."""
    keys: set[dg.AssetKey] = set()
    for parent_id in node["depends_on"].get("nodes", []):
        if source := manifest["sources"].get(parent_id):
            if source["source_name"] == "input":
                keys |= {dg.AssetKey(["input", name, source["name"]]) for name in names}
            continue
        parent = manifest["nodes"][parent_id]
        keys |= upstream_of(manifest, parent, names) if "step" in parent["tags"] else {key_of(parent)}
    return keys


def fates_metadata(fates: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    names = sorted({fate for counts in fates.values() for fate in counts})
    lines = [f"| hospital | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {h} | {' | '.join(str(c.get(n, 0)) for n in names)} |" for h, c in sorted(fates.items())]
    rows = sum(sum(counts.values()) for counts in fates.values())
    unmapped = sum(counts.get("unmapped", 0) for counts in fates.values())
    return {
        "fates": dg.MetadataValue.md("\n".join(lines)),
        "unmapped_share": round(unmapped / rows, 4) if rows else 0.0,
    }


def check_dictionary() -> None:
    """Refuse a dictionary or an item mapping that cannot work, before anything runs; looked at again when it changes.

    Raises dictionary.DictionaryError naming file, row and mend.
    """
    files = sorted((catalog.REPOSITORY / "orchestration").glob("**/items.csv"))
    digest = catalog.code_hash(dictionary.SEEDS, *files, Path(dictionary.__file__))
    if not CHECKED.exists() or CHECKED.read_text() != digest:
        dictionary.check(files)
        CHECKED.parent.mkdir(parents=True, exist_ok=True)
        CHECKED.write_text(digest)
