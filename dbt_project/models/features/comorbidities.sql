with visits as (
    select
        visits.hospital,
        visits.patient_id,
        visits.visit_id,
        visits.event_at,
        visits.end_at,
        date_part('year', visits.event_at) - patients.birth_year as age,
        coalesce(patients.person_group, visits.hospital) as person_group,
        coalesce(patients.person_id, visits.patient_id) as person_id
    from {{ source('input', 'visits') }} as visits
    left join {{ source('input', 'patients') }} as patients
        on visits.hospital = patients.hospital and visits.patient_id = patients.patient_id
    where visits.visit_id is not null and visits.event_at is not null
),

-- the groups of a diagnosis as coded: those that hold at least half of its weight
grouped as (
    select
        diagnoses.hospital,
        diagnoses.patient_id,
        diagnoses.visit_id,
        any_value(diagnoses.available_at) as available_at,
        codes.scheme,
        codes.comorbidity
    from {{ ref('diagnoses') }} as diagnoses
    inner join (
        select distinct
            codes.scheme,
            codes.comorbidity,
            coded.code
        from (select distinct code from {{ ref('diagnoses') }}) as coded
        inner join {{ ref('comorbidity_codes') }} as codes on starts_with(coded.code, codes.prefix)
    ) as codes on diagnoses.code = codes.code
    group by
        diagnoses.hospital,
        diagnoses.row_id,
        diagnoses.patient_id,
        diagnoses.visit_id,
        codes.scheme,
        codes.comorbidity
    having sum(diagnoses.weight) >= 0.5 - 1e-9
),

-- what any hospital of the person_group knows of the person; a diagnosis without a time is known at no time, and so is
-- no history
history as (
    select
        coalesce(patients.person_group, grouped.hospital) as person_group,
        coalesce(patients.person_id, grouped.patient_id) as person_id,
        grouped.scheme,
        grouped.comorbidity,
        min(grouped.available_at) as known_at
    from grouped
    left join {{ source('input', 'patients') }} as patients
        on grouped.hospital = patients.hospital and grouped.patient_id = patients.patient_id
    group by all
),

present as (
    select distinct
        visits.hospital,
        visits.visit_id,
        'admission' as as_of,
        history.scheme,
        history.comorbidity
    from visits
    inner join history
        on
            visits.person_group = history.person_group
            and visits.person_id = history.person_id
            and visits.event_at >= history.known_at
    union all
    select distinct
        hospital,
        visit_id,
        'discharge' as as_of,
        scheme,
        comorbidity
    from grouped
    where visit_id is not null
),

judged as (
    select
        present.*,
        groups.weight,
        severe.comorbidity is not null as is_superseded
    from present
    inner join {{ ref('comorbidity_groups') }} as groups
        on present.scheme = groups.scheme and present.comorbidity = groups.comorbidity
    left join present as severe
        on
            present.hospital = severe.hospital
            and present.visit_id = severe.visit_id
            and present.as_of = severe.as_of
            and present.scheme = severe.scheme
            and groups.superseded_by = severe.comorbidity
),

points as (
    select
        hospital,
        visit_id,
        as_of,
        {% for scheme in ['charlson', 'elixhauser'] %}
            sum(weight) filter (where scheme = '{{ scheme }}') as {{ scheme }}_flat,
            sum(weight) filter (where scheme = '{{ scheme }}' and not is_superseded) as {{ scheme }}_hierarchy,
        {% endfor %}
        {% for column in model.columns.values() if column.meta.scheme is defined %}
            count(*) filter (
                where scheme = '{{ column.meta.scheme }}' and comorbidity = '{{ column.meta.comorbidity }}'
            ) as {{ column.name }}{{ ',' if not loop.last }}
        {% endfor %}
    from judged
    group by hospital, visit_id, as_of
),

moments as (
    select
        *,
        'admission' as as_of,
        event_at as known_at
    from visits
    union all
    select
        visits.*,
        'discharge' as as_of,
        greatest(coded.known_at, visits.end_at) as known_at
    from visits
    inner join (
        select
            hospital,
            visit_id,
            max(available_at) as known_at
        from {{ ref('diagnoses') }}
        where code is not null
        group by hospital, visit_id
    ) as coded on visits.hospital = coded.hospital and visits.visit_id = coded.visit_id
    where visits.end_at is not null
)

select
    moments.hospital,
    moments.patient_id,
    moments.visit_id,
    moments.as_of,
    moments.known_at,
    case when coded.is_coded then cast(coalesce(points.charlson_flat, 0) as integer) end as charlson_flat,
    case when coded.is_coded then cast(coalesce(points.charlson_hierarchy, 0) as integer) end as charlson_hierarchy,
    -- greatest and least pass over a null: an unknown age would count as a young one
    case when moments.age is not null then cast(least(4, greatest(0, floor(moments.age / 10) - 4)) as integer) end
        as charlson_age_points,
    case when coded.is_coded then cast(coalesce(points.elixhauser_flat, 0) as integer) end as elixhauser_flat,
    case when coded.is_coded then cast(coalesce(points.elixhauser_hierarchy, 0) as integer) end as elixhauser_hierarchy,
    {% for column in model.columns.values() if column.meta.scheme is defined %}
        case when coded.is_coded then cast(coalesce(points.{{ column.name }}, 0) as integer) end
            as {{ column.name }}{{ ',' if not loop.last }}
    {% endfor %}
from moments
left join points
    on
        moments.hospital = points.hospital
        and moments.visit_id = points.visit_id
        and moments.as_of = points.as_of
-- where nobody codes in ICD, nothing is known of anybody: null, not 0
left join (
    select distinct
        person_group,
        true as is_coded
    from {{ source('dictionary', 'icd_hospitals') }}
) as coded on moments.person_group = coded.person_group
