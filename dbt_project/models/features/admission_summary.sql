{#- The columns with a concept and a statistic are listed in admission_summary.yml, made from seeds/concepts.csv. -#}
{%- set measured = measured_columns() -%}
{%- set names = "'" ~ measured | map(attribute='concept') | unique | join("', '") ~ "'" -%}

with visits as (
    select
        visits.*,
        patients.sex,
        date_part('year', visits.event_at) - patients.birth_year as age,
        visits.event_at + interval 24 hours as cut_at
    from {{ source('input', 'visits') }} as visits
    left join {{ source('input', 'patients') }} as patients
        on visits.hospital = patients.hospital and visits.patient_id = patients.patient_id
    where visits.visit_id is not null and visits.event_at is not null
),

known as (
    select
        visits.hospital,
        visits.visit_id,
        events.kind,
        events.concept,
        events.drug
    from visits
    inner join (
        select
            hospital,
            visit_id,
            available_at,
            kind,
            concept,
            null as drug
        from {{ ref('events') }}
        where kind not in ('prescription', 'infusion')
        union all
        select
            hospital,
            visit_id,
            available_at,
            'drug',
            null,
            drug
        from {{ ref('medications') }}
    ) as events
        on
            visits.hospital = events.hospital
            and visits.visit_id = events.visit_id
            and visits.cut_at >= events.available_at
),

counts as (
    select
        hospital,
        visit_id,
        count(*) filter (where kind = 'transfer') as n_transfers,
        count(*) filter (where kind = 'lab') as n_labs,
        count(*) filter (where kind = 'vital') as n_vitals,
        count(*) filter (where kind = 'culture') as n_cultures,
        count(*) filter (where kind = 'procedure') as n_procedures,
        count(distinct drug) as n_drugs
    from known
    group by hospital, visit_id
),

earlier as (
    select
        visits.hospital,
        visits.visit_id,
        count(*) as n_earlier_visits
    from visits
    inner join {{ source('input', 'visits') }} as before
        on
            visits.hospital = before.hospital
            and visits.patient_id = before.patient_id
            and visits.event_at > before.event_at
    group by visits.hospital, visits.visit_id
),

readings as (
    select
        visits.hospital,
        visits.visit_id,
        readings.concept,
        arg_min(readings.value, { 'at': readings.event_at, 'row_id': readings.row_id }) as first,
        arg_max(readings.value, { 'at': readings.event_at, 'row_id': readings.row_id }) as last,
        min(readings.value) as min,
        max(readings.value) as max
    from {{ ref('readings') }} as readings
    inner join {{ ref('clocks') }} as clocks on readings.clock_no = clocks.clock_no
    inner join visits
        on
            clocks.hospital = visits.hospital
            and clocks.visit_id = visits.visit_id
            and readings.available_at <= visits.cut_at
    where readings.concept in ({{ names }})
    group by visits.hospital, visits.visit_id, readings.concept
),

wide as (
    select
        hospital,
        visit_id,
        {% for column in measured %}
            max({{ column.statistic }}) filter (where concept = '{{ column.concept }}')
                as {{ column.name }}{{ ',' if not loop.last }}
        {% endfor %}
    from readings
    group by hospital, visit_id
)

select
    visits.hospital,
    visits.patient_id,
    visits.visit_id,
    visits.event_at,
    visits.cut_at,
    cast(visits.age as integer) as age,
    visits.sex,
    nullif(lower(trim(visits.visit_type)), '') as visit_type,
    cast(coalesce(earlier.n_earlier_visits, 0) as integer) as n_earlier_visits,
    {% for kind in ['transfers', 'labs', 'vitals', 'cultures', 'procedures', 'drugs'] %}
        cast(coalesce(counts.n_{{ kind }}, 0) as integer) as n_{{ kind }},
    {% endfor %}
    {% for column in measured %}
        wide.{{ column.name }}{{ ',' if not loop.last }}
    {% endfor %}
from visits
left join counts on visits.hospital = counts.hospital and visits.visit_id = counts.visit_id
left join earlier on visits.hospital = earlier.hospital and visits.visit_id = earlier.visit_id
left join wide on visits.hospital = wide.hospital and visits.visit_id = wide.visit_id
