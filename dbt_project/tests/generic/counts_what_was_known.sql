{#- A grid counts in each of its steps just the measurements of the step that were known by its end. -#}
{% test counts_what_was_known(model, grid) %}
with counted as (
    select
        hospital,
        {{ 'stay_id' if grid.clock == 'stay' else 'visit_id' }} as id,
        sum({{ grid.counts | join(' + ') }}) as n_obs
    from {{ model }}
    group by all
),

known as (
    select
        clocks.hospital,
        clocks.{{ 'stay_id' if grid.clock == 'stay' else 'visit_id' }} as id,
        count(*) as n_obs
    from {{ ref(grid.name ~ '_readings') }} as readings
    inner join {{ ref(grid.name ~ '_clocks') }} as lengths on readings.clock_no = lengths.clock_no
    inner join {{ ref('clocks') }} as clocks on readings.clock_no = clocks.clock_no
    where
        readings.concept in ('{{ grid.concepts | join("', '") }}')
        and readings.step between 0 and lengths.steps - 1
        and readings.available_at <= clocks.start_at + to_minutes((readings.step + 1) * {{ grid.minutes }})
    group by all
)

select
    coalesce(counted.hospital, known.hospital) as hospital,
    count(*) as clocks
from counted
full outer join known on counted.hospital = known.hospital and counted.id = known.id
where coalesce(counted.n_obs, 0) <> coalesce(known.n_obs, 0)
group by all
{% endtest %}
