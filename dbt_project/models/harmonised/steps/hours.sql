-- One row a clock, concept and hour of measurement: what the hour amounts to once all of it was known.
select
    clock_no,
    concept,
    hour,
    {{ hourly_value() }} as value,
    cast(count(*) as integer) as n_obs,
    min(known_hour) as first_known_hour,
    max(known_hour) as last_known_hour,
    min(event_at) as event_at,
    max(available_at) as available_at,
    min(row_id) as row_id
from {{ ref('readings') }}
group by clock_no, concept, hour
