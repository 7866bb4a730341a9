"""DemoHospital: writes the export of an invented hospital, which a HospitalSource then reads like any other."""

import os
import re
from typing import Literal

import dagster as dg
from pydantic import Field

from orchestration import catalog


class DemoHospital(dg.Component, dg.Model, dg.Resolvable):
    """One asset, `export/<hospital>`: files below `<data root>/exports/<hospital>/`, written again only when the settings
    or the generator change. Hospitals with one seed and one number of twins share these twins.

    `WARDLINE_DEMO_PATIENTS` (a number) makes every demo hospital that small, a tenth of it twins: for a quick try.
    A hospital that `WARDLINE_HOSPITALS` leaves out has no asset."""

    hospital: str = Field(description="Name of the hospital, as in its folder.")
    style: Literal["north", "south"] = Field(
        description="How it writes: north (SI, ICD-10) or south (conventional, ICD-9)."
    )
    patients: int = Field(description="Persons, twins included; some 1.2 admissions each.")
    twins: int = Field(
        default=0, description="How many of them every hospital of this seed has too, at full precision."
    )
    seed: int = Field(description="Same seed, same bytes.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        if wrong := self.wrong():
            raise ValueError(f"{context.path}/defs.yaml: attributes.{wrong}")
        limit = [name.strip() for name in os.environ.get("WARDLINE_HOSPITALS", "").split(",") if name.strip()]
        return dg.Definitions(assets=[self.export_asset()] if not limit or self.hospital in limit else [])

    def wrong(self) -> str | None:
        """The first value that cannot be, as 'key: mend'; None if all are fine."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.hospital):
            return "hospital: write lower case letters, digits and underscores"
        if not 1 <= self.patients <= 100_000:
            return f"patients: {self.patients} is not between 1 and 100000"
        if not 0 <= self.twins <= self.patients:
            return f"twins: {self.twins} is not between 0 and patients, {self.patients}"
        return None if self.seed >= 0 else f"seed: {self.seed} is negative; write 0 or more"

    def size(self) -> tuple[int, int]:
        """(patients, twins), as the YAML or `WARDLINE_DEMO_PATIENTS` says. Raises dg.Failure if that is no number."""
        small = os.environ.get("WARDLINE_DEMO_PATIENTS", "").strip()
        if not small:
            return self.patients, self.twins
        if not small.isdigit() or int(small) < 1:
            raise dg.Failure(
                "WARDLINE_DEMO_PATIENTS must be a whole number of patients, 1 or more; mend or unset it"
            )
        return int(small), int(small) // 10

    def export_asset(self) -> dg.AssetsDefinition:
        @dg.asset(
            key=["export", self.hospital],
            group_name="export",
            kinds={"python", "polars"},
            description=f"Invented patients of {self.hospital}, written as a hospital in the {self.style} manner would export them.",
        )
        def export() -> dg.MaterializeResult:
            from orchestration.synthetic.export import DemoExport

            demo = DemoExport(self.hospital, self.style, *self.size(), self.seed)
            location = catalog.join(catalog.data_root(), "exports", self.hospital)
            standing = demo.standing(location)
            manifest = standing or demo.write(location)
            return dg.MaterializeResult(metadata=_metadata(manifest, location, reused=standing is not None))

        return export


def _metadata(manifest: dict, location: str, reused: bool) -> dict[str, object]:
    """Counts only."""
    files = manifest["files"]
    lines = ["| file | rows | bytes |", "|---|---:|---:|"]
    lines += [f"| {name} | {file['rows']} | {file['bytes']} |" for name, file in sorted(files.items())]
    planted = [
        f"| {kind.replace('_', ' ')} | {count} |" for kind, count in sorted(manifest["planted"].items())
    ]
    return {
        "files": dg.MetadataValue.md("\n".join(lines)),
        "planted_errors": dg.MetadataValue.md(
            "\n".join(["| kind | rows |", "|---|---:|", *planted]) if planted else "none"
        ),
        "dagster/row_count": sum(file["rows"] for file in files.values()),
        "bytes": sum(file["bytes"] for file in files.values()),
        "patients": manifest["patients"],
        "twins": manifest["twins"],
        "seed": manifest["seed"],
        "reused": reused,
        "path": dg.MetadataValue.path(location),
    }
