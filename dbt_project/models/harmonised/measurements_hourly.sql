with contributors as (
    select
        clock_no,
        concept,
        hour,
        min(event_at) as event_at,
        max(available_at) as available_at,
        min(row_id) as row_id
    from {{ ref('readings') }}
    group by clock_no, concept, hour
)

select
    clocks.hospital,
    clocks.patient_id,
    clocks.visit_id,
    clocks.stay_id,
    hours.concept,
    hours.hour,
    hours.value,
    hours.n_obs,
    contributors.event_at,
    contributors.available_at,
    contributors.row_id
from {{ ref('hours') }} as hours
inner join contributors
    on
        hours.clock_no = contributors.clock_no
        and hours.concept = contributors.concept
        and hours.hour = contributors.hour
inner join {{ ref('clocks') }} as clocks on hours.clock_no = clocks.clock_no
