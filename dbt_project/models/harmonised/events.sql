-- The one timeline. A row says nothing that was learned after its available_at: an end that came later is an event of
-- its own ('discharge', the end of an infusion), and end_at is set only where the end was known with the row.
with demographics as (
    select
        visits.*,
        patients.sex,
        date_part('year', visits.event_at) - patients.birth_year as age
    from {{ source('input', 'visits') }} as visits
    left join {{ source('input', 'patients') }} as patients
        on visits.hospital = patients.hospital and visits.patient_id = patients.patient_id
    where visits.event_at is not null
),

admissions as (
    select
        hospital,
        patient_id,
        visit_id,
        null as stay_id,
        event_at,
        null as end_at,
        {{ known_at('available_at', 'event_at') }} as available_at,
        'admission' as kind,
        null as code,
        null as code_system,
        null as concept,
        age as value,
        case when age is not null then 'a' end as unit,
        'admission: ' || concat_ws(
            ', ', coalesce(nullif(lower(trim(visit_type)), ''), 'unknown type'),
            case sex when 'F' then 'female' when 'M' then 'male' end
        ) as text,
        row_id
    from demographics
),

discharges as (
    select
        hospital,
        patient_id,
        visit_id,
        null as stay_id,
        end_at as event_at,
        null as end_at,
        {{ known_at('available_at', 'end_at') }} as available_at,
        'discharge' as kind,
        null as code,
        null as code_system,
        null as concept,
        null as value,
        null as unit,
        'discharge: ' || case
            when died_in_visit then 'died in hospital'
            else coalesce(nullif(lower(trim(discharge_to)), ''), 'unknown')
        end as text,
        row_id
    from {{ source('input', 'visits') }}
    where end_at is not null
),

transfers as (
    select
        hospital,
        patient_id,
        visit_id,
        stay_id,
        event_at,
        null as end_at,
        {{ known_at('available_at', 'event_at') }} as available_at,
        'transfer' as kind,
        null as code,
        null as code_system,
        null as concept,
        null as value,
        null as unit,
        'transfer to ' || coalesce(nullif(lower(trim(care_unit)), ''), 'unknown unit') as text,
        row_id
    from {{ source('input', 'stays') }}
    where event_at is not null
),

-- Vital signs are one event an hour, known when the hour ends; what of an hour arrives later is an event of its own. So
-- no time of a row hints at readings that are still to come. All else that is measured is one event a reading.
vitals_of_the_hour as (
    select
        readings.clock_no,
        readings.concept,
        min(readings.event_at) as event_at,
        any_value(clocks.start_at) + to_hours(readings.known_hour + 1) as available_at,
        {{ value_of_step() }} as value,
        min(readings.row_id) as row_id
    from {{ ref('readings') }} as readings
    inner join {{ ref('clocks') }} as clocks on readings.clock_no = clocks.clock_no
    where readings.is_vital
    group by readings.clock_no, readings.concept, readings.hour, readings.known_hour
),

measured as (
    select
        clocks.hospital,
        clocks.patient_id,
        clocks.visit_id,
        clocks.stay_id,
        readings.event_at,
        null as end_at,
        readings.available_at,
        case concepts.category
            when 'lab' then 'lab'
            when 'blood_gas' then 'lab'
            when 'output' then 'output'
            when 'score' then 'score'
            when 'drug_rate' then 'infusion'
            else 'vital'
        end as kind,
        concepts.loinc as code,
        case when concepts.loinc is not null then 'LOINC' end as code_system,
        readings.concept,
        readings.value,
        concepts.unit,
        lower(concepts.label || case when left(concepts.unit, 1) = '{' then '' else ' in ' || concepts.unit end)
            as text,
        readings.row_id
    from (
        select
            clock_no,
            concept,
            event_at,
            available_at,
            value,
            row_id
        from vitals_of_the_hour
        union all
        select
            clock_no,
            concept,
            event_at,
            available_at,
            value,
            row_id
        from {{ ref('readings') }}
        where not is_vital
    ) as readings
    inner join {{ ref('clocks') }} as clocks on readings.clock_no = clocks.clock_no
    inner join {{ ref('concepts') }} as concepts on readings.concept = concepts.concept
),

-- one event a diagnosis as the hospital coded it; all of its targets lie in harmonised/diagnoses with their weights
diagnosed as (
    select
        hospital,
        patient_id,
        visit_id,
        null as stay_id,
        event_at,
        null as end_at,
        available_at,
        'diagnosis' as kind,
        case when mapping = 'one_to_many' then code_raw else coalesce(code, code_raw) end as code,
        case when mapping = 'one_to_many' or code is null then system_raw else 'ICD10CM' end as code_system,
        case when groups_of_row = 1 then ccsr end as concept,
        null as value,
        null as unit,
        'diagnosis: ' || lower(coalesce(
            case when mapping = 'one_to_many' then title_raw else title end, title_raw, 'code ' || code_raw
        )) as text,
        row_id
    from (
        select
            *,
            count(distinct ccsr) over (partition by hospital, row_id) as groups_of_row
        from {{ ref('diagnoses') }}
    ) as diagnoses
    where mapping_rank = 1
),

procedures as (
    select
        hospital,
        patient_id,
        visit_id,
        null as stay_id,
        event_at,
        end_at,
        {{ known_at('available_at', 'event_at') }} as available_at,
        'procedure' as kind,
        code,
        code_system,
        null as concept,
        null as value,
        null as unit,
        'procedure: ' || lower(coalesce(nullif(trim(text), ''), 'code ' || code, 'unknown')) as text,
        row_id
    from {{ source('input', 'procedures') }}
    where event_at is not null
),

given as (
    select
        *,
        coalesce(drug, 'unknown drug') || case when route is null then '' else ' by ' || route end as what
    from {{ ref('medications') }}
    where event_at is not null
),

medicated as (
    select
        hospital,
        patient_id,
        visit_id,
        stay_id,
        event_at,
        end_at,
        available_at,
        case kind when 'infusion' then 'infusion' else 'prescription' end as kind,
        code,
        code_system,
        drug as concept,
        coalesce(rate, dose) as value,
        case when rate is null then coalesce(dose_unit, dose_unit_raw) else rate_unit_raw end as unit,
        case kind when 'infusion' then 'start of ' when 'administration' then 'dose of ' else 'order of ' end
        || what as text,
        row_id
    from given
    union all
    select
        hospital,
        patient_id,
        visit_id,
        stay_id,
        end_at as event_at,
        null as end_at,
        greatest(available_at, end_at) as available_at,
        'infusion' as kind,
        code,
        code_system,
        drug as concept,
        null as value,
        null as unit,
        'end of ' || what as text,
        row_id
    from given
    where kind = 'infusion' and end_at is not null
),

grown as (
    select
        *,
        lower(coalesce(nullif(trim(specimen), ''), nullif(trim(test), ''), 'unknown specimen')) as what,
        lower(nullif(trim(organism), '')) as grown_organism,
        {{ known_at('available_at', 'event_at') }} as known_at
    from {{ source('input', 'microbiology') }}
    where event_at is not null
),

cultures as (
    select
        hospital,
        patient_id,
        visit_id,
        null as stay_id,
        event_at,
        null as end_at,
        known_at as available_at,
        'culture' as kind,
        null as code,
        null as code_system,
        grown_organism as concept,
        null as value,
        null as unit,
        'culture of ' || what || ': ' || coalesce(grown_organism, 'no growth') as text,
        min(row_id) as row_id
    from grown
    group by hospital, patient_id, visit_id, event_at, known_at, what, grown_organism
),

susceptibilities as (
    select
        hospital,
        patient_id,
        visit_id,
        null as stay_id,
        event_at,
        null as end_at,
        known_at as available_at,
        'susceptibility' as kind,
        null as code,
        null as code_system,
        {{ drug_name('antibiotic') }} as concept,
        null as value,
        null as unit,
        grown_organism || ' and ' || {{ drug_name('antibiotic') }} || ': '
        || case interpretation when 'S' then 'susceptible' when 'I' then 'intermediate' else 'resistant' end as text,
        row_id
    from grown
    where grown_organism is not null and antibiotic is not null and interpretation in ('S', 'I', 'R')
),

notes as (
    select
        hospital,
        patient_id,
        visit_id,
        null as stay_id,
        event_at,
        null as end_at,
        {{ known_at('available_at', 'event_at') }} as available_at,
        'note' as kind,
        null as code,
        null as code_system,
        null as concept,
        null as value,
        null as unit,
        'note: ' || coalesce(nullif(lower(trim(kind)), ''), 'unknown kind') as text,
        row_id
    from {{ source('input', 'notes') }}
    where event_at is not null
),

events as (
    {%- for part in [
        'admissions', 'discharges', 'transfers', 'measured', 'diagnosed', 'procedures', 'medicated',
        'cultures', 'susceptibilities', 'notes'
    ] %}
        select * from {{ part }}
        {%- if not loop.last %}
            union all
        {%- endif %}
    {%- endfor %}
)

select
    hospital,
    patient_id,
    visit_id,
    cast(stay_id as varchar) as stay_id,
    event_at,
    case when end_at <= available_at then cast(end_at as timestamp) end as end_at,
    available_at,
    kind,
    cast(code as varchar) as code,
    cast(code_system as varchar) as code_system,
    cast(concept as varchar) as concept,
    cast(value as double) as value,
    cast(unit as varchar) as unit,
    text,
    row_id
from events
