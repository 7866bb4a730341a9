select
    clocks.hospital,
    clocks.patient_id,
    clocks.visit_id,
    clocks.stay_id,
    hours.concept,
    hours.hour,
    hours.value,
    hours.n_obs,
    hours.event_at,
    hours.available_at,
    hours.row_id
from {{ ref('hours') }} as hours
inner join {{ ref('clocks') }} as clocks on hours.clock_no = clocks.clock_no
