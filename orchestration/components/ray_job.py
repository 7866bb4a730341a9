"""RayJob: one YAML, one job, one or more assets, computed by `python -m ray_jobs.<job>` here or on a cluster."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import yaml
from pydantic import Field

from orchestration import catalog, dbt, gate, launch
from orchestration.tasks import definition
from ray_jobs.config import GATE_CHECK, JobConfig, JobError, code_of

EVERY_TASK = "labels/*"
STAGES = ("base_model", "stage1", "stage2", "predictor")


class CheckModel(dg.Model):
    """A sentence that the job must be able to say of an asset."""

    name: str
    description: str
    asset: str | None = Field(default=None, description="Asset key; by default the job's first asset.")
    severity: Literal["ERROR", "WARN"] = "ERROR"
    blocking: bool = Field(
        default=True, description="A failed ERROR check stops what is downstream in the same run."
    )


class RayJob(dg.Component, dg.Model, dg.Resolvable):
    """One Ray job as assets. What it would make is known before it runs (versions of its inputs, parameters, recipe,
    code): if the accepted version was made from just that, it is reused and nothing is launched."""

    job: str = Field(description="Module below `package`: `train` is `python -m ray_jobs.train`.")
    package: str = Field(
        default="ray_jobs", description="Python package of the job; a hospital's own jobs may have theirs."
    )
    asset: str | None = Field(
        default=None, description="Key of the one asset, such as weights/stage1; else use `assets`."
    )
    assets: dict[str, str] = Field(default={}, description="Several assets: key to description.")
    description: str = ""
    deps: list[str] = Field(
        default=[],
        description="Assets that the job reads; their accepted versions are its inputs. labels/* is every task's.",
    )
    standing: list[str] = Field(
        default=[],
        description="Assets of earlier nights that the job compares with: read if accepted, no edge in the graph.",
    )
    recipe: str | None = Field(
        default=None, description="A file of ray_jobs/recipes, handed over as params.recipe."
    )
    stages: list[Literal["base_model", "stage1", "stage2", "predictor"]] = Field(
        default=list(STAGES), description="Which stages of the recipe the job depends on."
    )
    files: list[str] = Field(default=[], description="Further files of the repository whose content counts.")
    params: dict[str, Any] = Field(default={}, description="Handed to the job as they are.")
    checks: list[CheckModel] = Field(default=[])
    group: str
    kinds: list[str] = Field(default=["ray"])
    pool: str | None = None
    ray_address: str | None = Field(
        default=None, description="A cluster's Jobs API; by default RAY_ADDRESS, else this machine."
    )

    @property
    def keys(self) -> dict[str, str]:
        return {self.asset: self.description} if self.asset else self.assets

    @property
    def reads(self) -> list[str]:
        """`deps`, with every task in place of labels/*."""
        tasks = [f"labels/{task}" for task in definition.read(dbt.PROJECT)] if EVERY_TASK in self.deps else []
        return [*(dep for dep in self.deps if dep != EVERY_TASK), *tasks]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        self.validate_here(f"{context.path}/defs.yaml")

        @dg.multi_asset(
            name="__".join(next(iter(self.keys)).split("/")),
            specs=[self._spec(key, description) for key, description in self.keys.items()],
            check_specs=[self._check_spec(check) for check in self.all_checks()],
            pool=self.pool,
        )
        def ray_job(context: dg.AssetExecutionContext) -> Iterator[Any]:
            yield from self.execute(context)

        return dg.Definitions(assets=[ray_job])

    def validate_here(self, file: str) -> None:
        """Raises ValueError with file, key and mend for what the types alone do not catch."""
        if bool(self.asset) == bool(self.assets):
            raise ValueError(f"{file}: give either asset or assets")
        try:
            code_of(self.job, self.package)
        except JobError as error:
            raise ValueError(f"{file}: job: {error}") from None
        for path in [*self._recipe_file(), *(catalog.REPOSITORY / f for f in self.files)]:
            if not path.exists():
                raise ValueError(
                    f"{file}: {path.relative_to(catalog.REPOSITORY)} does not exist; mend recipe or files"
                )
        for check in self.checks:
            if check.asset and check.asset not in self.keys:
                raise ValueError(
                    f"{file}: checks: {check.name} names {check.asset}; write one of {', '.join(self.keys)}"
                )

    def all_checks(self) -> list[CheckModel]:
        """The checks of the YAML, and the gate's for each asset that has a suite of expectations."""
        first = next(iter(self.keys))
        named = [c.model_copy(update={"asset": c.asset or first}) for c in self.checks]
        says = "Great Expectations' suite accepts the table; if not, nothing is published."
        return named + [
            CheckModel(name=GATE_CHECK, description=says, asset=k) for k in self.keys if gate.has_suite(k)
        ]

    def execute(self, context: dg.AssetExecutionContext) -> Iterator[Any]:
        """Reuse or launch; yields materialisations and check results. Raises dg.Failure with one line."""
        root = catalog.data_root()
        try:
            config = self.plan(catalog.load(root), context.run.run_id)
            if all(catalog.load(root).reusable(key, config.fingerprint) for key in self.keys):
                yield from self._reused(context, catalog.load(root))
                return
            if config.ray_address:
                launch.check_address(config.ray_address, root)
        except (JobError, launch.LaunchError, catalog.CatalogError) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        yield from self._launched(context, config)

    def plan(self, accepted: catalog.Catalog, run_id: str) -> JobConfig:
        """The job's configuration with its fingerprint. Raises NotPublished if an input has no accepted version."""
        inputs = {key: accepted.version(key) for key in self.reads}
        inputs |= {key: version for key in self.standing if (version := _standing(accepted, key, inputs))}
        params = dict(self.params)
        for file in self._recipe_file():
            recipe = yaml.safe_load(file.read_text())
            params["recipe"] = {k: v for k, v in recipe.items() if k not in STAGES or k in self.stages}
        fingerprint = catalog.fingerprint(
            job=self.job,
            inputs=inputs,
            params=params,
            files=catalog.code_hash(*(catalog.REPOSITORY / f for f in self.files)),
            code=code_of(self.job, self.package),
        )
        checks = {f"{c.asset}:{c.name}": c.severity for c in self.all_checks()}
        address = launch.address_of(self.ray_address)
        return JobConfig(
            self.job, run_id, accepted.root, fingerprint, inputs, list(self.keys), params, address, checks
        )

    def _recipe_file(self) -> list[Path]:
        return [catalog.REPOSITORY / "ray_jobs" / "recipes" / f"{self.recipe}.yaml"] if self.recipe else []

    def _launched(self, context: dg.AssetExecutionContext, config: JobConfig) -> Iterator[Any]:
        module, url = f"{self.package}.{self.job}", config.write()
        try:
            if config.ray_address:
                done = launch.on_cluster(context, module, url, config.ray_address)
            else:
                done = launch.here(context, module, url)
        except launch.JobFailed as error:
            failure = _failure(config)
            yield from (
                _check_result(c) for c in failure["checks"] if f"{c['asset']}:{c['name']}" in config.checks
            )
            why = (
                failure["error"]
                or f"{module} ended without a word ({error}); look at {config.beside('.log')}"
            )
            raise dg.Failure(why, allow_retries=False) from None
        results = list(done.get_results(implicit_materializations=False))
        yield from results
        yield from self._unsaid(results)

    def _unsaid(self, results: list[Any]) -> Iterator[Any]:
        """A check of the YAML that the job did not report has not passed."""
        said = {
            (r.asset_key.to_user_string(), r.check_name)
            for r in results
            if isinstance(r, dg.AssetCheckResult)
        }
        for check in self.all_checks():
            if (check.asset, check.name) not in said:
                why = {"why": f"{self.job} did not report {check.name}"}
                yield _check_result({**check.model_dump(), "passed": False, "metadata": why})

    def _reused(self, context: dg.AssetExecutionContext, accepted: catalog.Catalog) -> Iterator[Any]:
        context.log.info("nothing new: %s reused, nothing launched", ", ".join(self.keys))
        said: dict[tuple[str, str], dict] = {}
        for key in self.keys:
            entry = accepted.entry(key)
            kept = dict(entry["metadata"])
            said |= {(c["asset"], c["name"]): c for c in kept.pop("checks", [])}
            shown = {**kept, **_notes(accepted, key), "version": entry["version"], "reused": True}
            yield dg.MaterializeResult(
                key.split("/"), metadata=_typed(shown), data_version=dg.DataVersion(entry["version"])
            )
        for check in self.all_checks():
            passed = {
                **check.model_dump(),
                "passed": True,
                "metadata": {"why": "the accepted version passed it"},
            }
            yield _check_result(said.get((check.asset, check.name), passed))

    def _spec(self, key: str, description: str) -> dg.AssetSpec:
        deps = [dg.AssetKey(d.split("/")) for d in self.reads]
        return dg.AssetSpec(
            dg.AssetKey(key.split("/")),
            deps=deps,
            description=description,
            group_name=self.group,
            kinds=set(self.kinds),
            skippable=True,
        )

    def _check_spec(self, check: CheckModel) -> dg.AssetCheckSpec:
        key = dg.AssetKey(check.asset.split("/"))
        return dg.AssetCheckSpec(
            check.name, asset=key, description=check.description, blocking=check.blocking
        )


def _standing(accepted: catalog.Catalog, key: str, inputs: Mapping[str, str]) -> str | None:
    """Version of an asset of earlier nights; if it was made from today's inputs, the version that it replaced."""
    entry = accepted.accepted.get(key)
    if entry is None:
        return None
    shared = set(entry["inputs"]) & set(inputs)
    own_child = bool(shared) and all(entry["inputs"][k] == inputs[k] for k in shared)
    return entry["metadata"].get("replaced") if own_child else entry["version"]


def _failure(config: JobConfig) -> dict[str, Any]:
    try:
        return json.loads(catalog.read_bytes(config.beside(".failure.json")))
    except (FileNotFoundError, json.JSONDecodeError):
        return {"error": "", "checks": []}


def _notes(accepted: catalog.Catalog, key: str) -> dict[str, Any]:
    """The Markdown that a version directory holds beside its data: plots and tables for the UI."""
    files = [
        f
        for f in accepted.files(key)
        if f.endswith(".md") and f.count("/") == accepted.folder(key).count("/") + 1
    ]
    return {Path(f).stem: {"raw_value": catalog.read_bytes(f).decode(), "type": "md"} for f in files}


def _check_result(check: Mapping[str, Any]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey(check["asset"].split("/")),
        check_name=check["name"],
        passed=check["passed"],
        severity=dg.AssetCheckSeverity(check["severity"]),
        metadata=_typed(check["metadata"]),
    )


def _typed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as the catalog keeps it (JSON, Markdown marked as such) to Dagster's."""
    return {
        key: dg.MetadataValue.md(value["raw_value"])
        if isinstance(value, dict) and value.get("type") == "md"
        else value
        for key, value in metadata.items()
    }
