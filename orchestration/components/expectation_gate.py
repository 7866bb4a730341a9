"""ExpectationGate: the suites of `expectations/` as asset checks over what is published."""

import dagster as dg
from pydantic import Field

from orchestration import catalog, data_docs, gate, hospitals, input_layer, suites
from orchestration.wording import relative


class ExpectationGate(dg.Component, dg.Model, dg.Resolvable):
    """Great Expectations suites as asset checks, one an asset, over exactly the files that the catalog names.

    Each check also compares the files with the sha256 of their acceptance. The same suites judge every candidate before
    it is published; these checks say that what is published still holds, and blocking ones stop what is downstream.
    """

    assets: list[str] = Field(
        description="Asset keys with a suite, such as features/icu_hourly; input/* stands for the tables of all hospitals."
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        checks = []
        for key in self._keys():
            path = suites.suite_path(key)
            if not path.is_file():
                raise suites.SuiteError(
                    f"{context.path}/defs.yaml: attributes.assets: {key} has no suite; write {relative(path)}"
                )
            checks.append(suite_check(key, suites.read_suite(path)))
        return dg.Definitions(asset_checks=checks)

    def _keys(self) -> list[str]:
        keys = []
        for key in self.assets:
            if key == "input/*":
                keys += [f"input/{h}/{t}" for h in hospitals.configured_names() for t in input_layer.tables()]
            else:
                keys.append(key)
        return keys


def suite_check(key: str, suite: suites.Suite) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey(key.split("/")),
        name=suite.name,
        blocking=suite.blocking,
        description=suite.description or "; ".join(rule.says for rule in suite.expectations),
    )
    def check() -> dg.AssetCheckResult:
        root = catalog.data_root()
        accepted = catalog.load(root)
        if key not in accepted.accepted:
            return _result(False, {"failures": f"{key} has no accepted version; materialise it first"})
        changed = gate.changed_files(accepted, key)
        verdict = gate.judge(key, accepted.files(key))
        pages = data_docs.write_docs(root, [verdict])
        metadata = verdict.metadata() | {
            "version": accepted.version(key),
            "files_changed_since_acceptance": changed,
        }
        return _result(
            verdict.passed and not changed, metadata | {"data_docs": dg.MetadataValue.path(pages[0])}
        )

    return check


def _result(passed: bool, metadata: dict[str, object]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.ERROR, metadata=metadata)
