"""Label counts on the open demos of MIMIC-IV and MIMIC-IV-ED against queries over the raw files that share no code with the
warehouse. The two are one street: the emergency department's outcomes are told by the hospital that admits."""

from __future__ import annotations

import os
import subprocess
import sys

import duckdb
import pytest

from orchestration import catalog
from tests.conftest import REPOSITORY, SHARED

HOSPITAL, EMERGENCY = SHARED / "data" / "mimic-iv-demo-2.2", SHARED / "data" / "mimic-iv-ed-demo-2.2"

pytestmark = pytest.mark.skipif(
    not (HOSPITAL.is_dir() and EMERGENCY.is_dir()), reason="the open data is not at ../shared/data"
)

TABLES = {
    "admissions": "hosp/admissions", "patients": "hosp/patients", "diagnoses_icd": "hosp/diagnoses_icd",
    "labevents": "hosp/labevents", "icustays": "icu/icustays", "chartevents": "icu/chartevents",
    "transfers": "hosp/transfers",
    "edstays": "ed/edstays", "triage": "ed/triage",
    "eddiagnosis": "ed/diagnosis",
}  # fmt: skip
VISITS = """select *, dischtime - admittime as los, date_trunc('day', admittime) + interval 86399 second as first_day,
    date_trunc('day', dischtime) + interval 86399 second as last_day,
    (select min(i.intime) from icustays i where i.hadm_id = a.hadm_id) as icu,
    (select min(n.admittime) from admissions n where n.subject_id = a.subject_id and n.admittime > a.dischtime) as again,
    (select p.dod from patients p where p.subject_id = a.subject_id) as dod,
    (select max(greatest(admittime, dischtime)) from admissions) as the_end from admissions a"""
STAYS = """select e.*, t.acuity, year(intime) - p.anchor_year + p.anchor_age as age, p.dod, p.subject_id is not null as anchor_known,
    a.dischtime, (select min(i.intime) from icustays i where i.hadm_id = e.hadm_id) as icu,
    lead(intime) over (partition by e.subject_id order by intime) as again,
    (select max(outtime) from edstays) as the_end
    from edstays e join triage t using (stay_id) left join patients p on p.subject_id = e.subject_id
    left join admissions a on a.hadm_id = e.hadm_id"""
RESULTS = """select subject_id, charttime, min(valuenum) as lowest, max(valuenum) as highest from labevents
    where itemid in ({}) and valuenum is not null group by all"""
# a bedside glucose that no body has is no result; the laboratory writes one above its range in the comment alone
GLUCOSE = """select subject_id, charttime, min(value) as lowest from (
        select subject_id, charttime, coalesce(valuenum, 501) as value from labevents
        where itemid in (50809, 50931, 52027, 52569) and (valuenum is not null or comments ilike 'greater than%')
        union all select subject_id, charttime, valuenum from chartevents where itemid = 225664 and valuenum between 5 and 3000
    ) group by all"""
DIAGNOSIS = """select a.*, min(d.dischtime) as first, min(d.dischtime) filter (where d.dischtime > a.last_day
    and d.dischtime <= a.last_day + interval 365 day) as next from ({}) a left join (
        select subject_id, dischtime from diagnoses_icd join admissions using (subject_id, hadm_id)
        where (icd_version = 10 and regexp_matches(icd_code, '^({})')) or (icd_version = 9 and regexp_matches(icd_code, '^({})'))
    ) d on a.subject_id = d.subject_id where a.los > interval 0 hour group by all"""
# task: beginnings of its ICD-10-CM and ICD-9-CM codes
NEW = {
    "acute_myocardial_infarction": ("I21|I22", "410"),
    "celiac_disease": ("K900", "5790"),
    "hyperlipidemia": ("E78[0-5]", "272[0-4]"),
    "hypertension": ("I10", "401"),
    "lupus": ("M32", "7100"),
    "pancreatic_cancer": ("C25", "157"),
}
ICU = """select i.*, a.dischtime, a.hospital_expire_flag, i.intime + interval 48 hour as day_two
    from icustays i join admissions a using (hadm_id)"""
# hours with a heart rate, a breath or a saturation stand for the hours with any value: these are charted in every hour
CHARTED = """select i.*, a.hospital_expire_flag, p.dod, year(i.intime) - p.anchor_year + p.anchor_age as age,
    least(168, ceil(epoch(i.outtime - i.intime) / 3600)) as window_h,
    (select list(distinct floor(epoch(c.charttime - i.intime) / 3600) order by floor(epoch(c.charttime - i.intime) / 3600))
        from chartevents c where c.subject_id = i.subject_id and c.itemid in (220045, 220210, 220277) and c.valuenum > 0
        and c.charttime >= i.intime and c.charttime < least(i.outtime, i.intime + interval 168 hour)) as hours,
    exists (select 1 from transfers t where t.hadm_id = i.hadm_id and t.eventtype <> 'discharge' and t.intime >= i.outtime)
        as moved_on
    from icustays i join admissions a using (hadm_id) join patients p on p.subject_id = i.subject_id"""
LONGEST_GAP = """list_max(list_append(list_transform(range(1, len(hours) + 1),
    lambda k: hours[k] - coalesce(hours[k - 1], 0)), window_h - 1 - hours[-1]))"""
ALIVE = "hospital_expire_flag = 0 and coalesce(dod > last_day, true)"
ADULTS = "age >= 18 and acuity is not null"
FOLLOWED = (
    "not (discharged + interval 30 day > the_end and (again is null or again > discharged + interval 30 day))"
)
# task: rows, condition of a label, condition of a positive one
QUERIES = {
    "in_hospital_mortality": (VISITS, "los > interval 24 hour", "hospital_expire_flag = 1"),
    "length_of_stay": (VISITS, "los > interval 24 hour", "los >= interval 7 day"),
    "long_stay": (VISITS, "los > interval 0 hour and dischtime > first_day", "los >= interval 7 day"),
    "icu_transfer": (
        VISITS,
        "los > interval 0 hour and dischtime > first_day and (icu is null or icu > first_day)",
        "coalesce(icu <= dischtime, false)",
    ),
    "readmission_30d": (
        VISITS,
        f"hospital_expire_flag = 0 and {FOLLOWED.replace('discharged', 'dischtime')}",
        "coalesce(again <= dischtime + interval 30 day, false)",
    ),
    "readmission_after_discharge_day_as_published": (
        VISITS,
        "los > interval 0 hour and coalesce(again >= last_day + interval 1 minute, true) and "
        + FOLLOWED.replace("discharged", "last_day"),
        "coalesce(again <= last_day + interval 30 day, false)",
    ),
    "readmission_after_discharge_day": (
        VISITS,
        f"los > interval 0 hour and coalesce(again >= last_day + interval 1 minute, true) and {ALIVE} and "
        + FOLLOWED.replace("discharged", "last_day"),
        "coalesce(again <= last_day + interval 30 day, false)",
    ),
    "thrombocytopenia": (RESULTS.format("51265, 51704"), "true", "lowest < 150"),
    "hyperkalemia": (RESULTS.format("50822, 50971, 51677, 52452, 52610"), "true", "highest > 5.5"),
    "hyponatremia": (RESULTS.format("50824, 50983, 52455, 52623"), "true", "lowest <= 135"),
    "hypoglycemia": (GLUCOSE, "true", "lowest / 18.0156 <= 3.9"),
    "anemia": (RESULTS.format("50811, 51222, 51640"), "true", "lowest < 12"),
    "icu_mortality_48h": (ICU, "outtime >= day_two and dischtime >= day_two", "hospital_expire_flag = 1"),
    "icu_mortality_24h": (
        CHARTED,
        "age >= 18 and outtime >= intime + interval 30 hour and coalesce(dod + interval 86399 second >= intime + interval 30 hour, "
        f"true) and len(hours) >= 4 and {LONGEST_GAP} <= 12",
        "hospital_expire_flag = 1 and not moved_on",
    ),
    "ed_hospitalization": (STAYS, ADULTS, "hadm_id is not null"),
    "ed_critical_outcome_as_published": (
        STAYS,
        f"{ADULTS} and anchor_known",
        "coalesce(dod <= dischtime, false) or coalesce(icu - outtime <= interval 12 hour, false)",
    ),
    "ed_critical_outcome": (
        STAYS,
        f"{ADULTS} and anchor_known and (icu is null or icu > intime)",
        "disposition = 'EXPIRED' or coalesce(dod <= dischtime, false) or coalesce(icu - outtime <= interval 12 hour, false)",
    ),
    "ed_revisit_72h_as_published": (
        STAYS,
        f"{ADULTS} and hadm_id is null",
        "coalesce(again - outtime < interval 3 day, false)",
    ),
    "ed_revisit_72h": (
        STAYS,
        f"{ADULTS} and hadm_id is null and disposition <> 'EXPIRED' and "
        "(again is not null or outtime + interval 3 day <= the_end)",
        "coalesce(again > outtime and again - outtime < interval 3 day, false)",
    ),
}

for disease, codes in NEW.items():
    of, positive = DIAGNOSIS.format(VISITS, *codes), "coalesce(next >= last_day + interval 1 day, false)"
    first = "coalesce(first > last_day, true)"
    followed = "(next is not null or last_day + interval 365 day <= the_end)"
    QUERIES[f"new_{disease}_as_published"] = (of, first, positive)
    QUERIES[f"new_{disease}"] = (of, f"{first} and {ALIVE} and {followed}", positive)

# a group of Charlson: beginnings of its ICD-10 codes (Quan 2005) and of the ICD-9-CM codes that lead there
COMORBIDITIES = {
    "congestive_heart_failure": (
        "I099|I110|I13[02]|I255|I420|I42[5-9]|I43|I50|P290",
        "428|39891|402.1|404.[13]|425[4-9]",
    ),
    "chronic_pulmonary_disease": (
        "I27[89]|J4[0-7]|J6[0-7]|J684|J70[13]",
        "416[89]|49|50[0-5]|5064|508[18]",
    ),
}
HISTORY = """select count(*) from edstays e where exists (select 1 from (
        select subject_id, outtime as known_at, trim(icd_code) as code, icd_version from eddiagnosis join edstays using (subject_id, stay_id)
        union all select subject_id, dischtime, trim(icd_code), icd_version from diagnoses_icd join admissions using (subject_id, hadm_id)
    ) d where d.subject_id = e.subject_id and d.known_at <= e.intime
    and regexp_matches(code, if(icd_version = 10, '^({})', '^({})')))"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data root with the labels of both demos."""
    folder = str(tmp_path_factory.mktemp("labels") / "data")
    environment = os.environ | {
        "WARDLINE_DATA": folder,
        "WARDLINE_HOSPITALS": "mimic_iv,mimic_iv_ed",
        "MIMIC_IV_LOCATION": str(HOSPITAL),
        "MIMIC_IV_ED_LOCATION": str(EMERGENCY),
    }
    for command in (["ingest", "mimic_iv"], ["ingest", "mimic_iv_ed"], ["harmonise"]):
        call = [sys.executable, "-m", f"orchestration.{command[0]}", *command[1:]]
        done = subprocess.run(
            call, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def ask(query: str) -> tuple[int, ...]:
    """The one row of a query over the raw files."""
    with duckdb.connect() as connection:
        for name, path in TABLES.items():
            folder = EMERGENCY if path.startswith("ed/") else HOSPITAL
            connection.execute(f"create view {name} as from read_csv('{folder}/{path}.csv.gz')")
        return connection.execute(query).fetchall()[0]


def published(root: str, key: str, query: str) -> tuple[int, ...]:
    """The one row of a query over an asset."""
    files = ", ".join(f"'{file}'" for file in catalog.load(root).files(key))
    with duckdb.connect() as connection:
        connection.execute(f"create view rows as from read_parquet([{files}], hive_partitioning = false)")
        return connection.execute(query).fetchall()[0]


@pytest.mark.night
@pytest.mark.parametrize("task", QUERIES)
def test_labels_are_those_of_an_independent_query(root: str, task: str) -> None:
    rows, labelled, positive = QUERIES[task]
    labels, positives = ask(
        f"select count(*), count(*) filter (where {positive}) from ({rows}) where {labelled}"
    )
    assert labels > 0
    hospital = "mimic_iv_ed" if task.startswith("ed_") else "mimic_iv"
    found = f"select count(*), count(*) filter (where label = 1) from rows where hospital = '{hospital}'"
    assert published(root, f"labels/{task}", found) == (labels, positives)


@pytest.mark.night
@pytest.mark.parametrize("group", COMORBIDITIES)
def test_an_arrival_knows_what_earlier_stays_of_the_hospital_coded(root: str, group: str) -> None:
    found = f"select sum(charlson_{group}) from rows where hospital = 'mimic_iv_ed' and as_of = 'admission'"
    assert (
        published(root, "features/comorbidities", found) == ask(HISTORY.format(*COMORBIDITIES[group])) > (0,)
    )
