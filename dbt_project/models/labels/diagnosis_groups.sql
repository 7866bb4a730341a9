-- One row a visit and group of the list in dbt_project.yml; 1 if a diagnosis of the visit lies in the group with at
-- least half of its weight.
with groups as (
    select unnest({{ var('diagnosis_groups') }}) as code_group
),

coded as (
    select distinct
        hospital,
        visit_id,
        ccsr
    from (
        select
            hospital,
            visit_id,
            row_id,
            ccsr,
            sum(weight) as weight
        from {{ ref('diagnoses') }}
        where ccsr is not null and visit_id is not null
        group by all
    )
    where weight >= 0.5
)

select
    visits.hospital,
    visits.patient_id,
    visits.visit_id,
    visits.prediction_at,
    cast(coded.ccsr is not null as integer) as label,
    'diagnosis_groups' as task,
    '1' as task_version,
    groups.code_group
from {{ ref('visits_at_24h') }} as visits
cross join groups
left join coded
    on
        visits.hospital = coded.hospital
        and visits.visit_id = coded.visit_id
        and groups.code_group = coded.ccsr
-- a visit whose diagnoses have not been coded has no label
where exists (
    select 1 from {{ ref('diagnoses') }} as diagnoses
    where diagnoses.hospital = visits.hospital and diagnoses.visit_id = visits.visit_id
)
