"""The low-code building blocks; each is used through a `defs.yaml` below `orchestration/defs/`, none is wired by hand."""

from orchestration.components.demo_hospital import DemoHospital
from orchestration.components.expectation_gate import ExpectationGate
from orchestration.components.harmonisation_page import HarmonisationPage
from orchestration.components.hospital_source import HospitalSource
from orchestration.components.meds_export import MedsExport
from orchestration.components.night import Night
from orchestration.components.ray_job import RayJob
from orchestration.components.warehouse import Warehouse
from orchestration.components.yaib_export import YaibExport

__all__ = [
    "DemoHospital",
    "ExpectationGate",
    "HarmonisationPage",
    "HospitalSource",
    "MedsExport",
    "Night",
    "RayJob",
    "Warehouse",
    "YaibExport",
]
