with medications as (
    select
        *,
        {{ spelled('dose_unit') }} as dose_unit_spelled,
        nullif({{ drug_name('drug') }}, '') as drug_name,
        {{ known_at('available_at', 'event_at') }} as known_at
    from {{ source('input', 'medications') }}
)

select
    medications.hospital,
    medications.patient_id,
    medications.visit_id,
    medications.stay_id,
    medications.event_at,
    medications.end_at,
    medications.known_at as available_at,
    medications.kind,
    medications.code,
    medications.code_system,
    medications.drug_name as drug,
    medications.drug as drug_raw,
    medications.dose,
    -- a unit of a drug is no pure number: insulin and heparin are dosed in international units, others in units of
    -- their own
    case
        when medications.dose_unit_spelled not in ('unit', 'units') or medications.dose_unit is null then units.ucum
        when regexp_matches(medications.drug_name, 'insulin|heparin') then '[IU]'
        else '[arb''U]'
    end as dose_unit,
    medications.dose_unit as dose_unit_raw,
    medications.rate,
    medications.rate_unit as rate_unit_raw,
    nullif(lower(trim(medications.route)), '') as route,
    medications.row_id
from medications
left join {{ ref('units') }} as units on medications.dose_unit_spelled = units.spelling
