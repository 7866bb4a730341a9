{{ config(meta={'dagster': {'ref': {'name': 'events'}}}) }}

-- No event is known before it happened or tells an end that came later. (Grids: counts_what_was_known.)
select
    hospital,
    count(*) as rows
from {{ ref('events') }}
where available_at < event_at or end_at > available_at
group by hospital
