-- The textbook way: timestamps truncated to the hour as keys, one window over the whole wide table.
create table wide as
with read as (
    select distinct patient_id, stay_id, event_at, source_table, code, value_text, value_number, unit
    from measurements
),

understood as (
    select
        read.stay_id,
        read.event_at,
        items.concept,
        round(read.value_number * conversions.factor + conversions.shift, 10) as value
    from read
    inner join items on read.source_table = items.source_table and read.code = items.code
    left join units on lower(regexp_replace(read.unit, '\s', '', 'g')) = units.spelling
    inner join conversions
        on items.concept = conversions.concept and coalesce(units.ucum, items.unit) = conversions.unit_from
),

cells as (
    select
        understood.stay_id,
        date_trunc('hour', understood.event_at) as hour_at,
        understood.concept,
        case any_value(concepts.aggregate)
            when 'median' then median(value)
            when 'sum' then sum(value)
            when 'last' then arg_max(value, event_at)
        end as value,
        count(*) as n_obs
    from understood inner join concepts on understood.concept = concepts.concept
    where understood.value between concepts.plausible_low and concepts.plausible_high
    group by all
),

grid as (
    select
        stay_id,
        event_at as start_at,
        unnest(generate_series(event_at, end_at - interval 1 hour, interval 1 hour)) as hour_at
    from stays
),

together as (
    select
        grid.stay_id,
        grid.start_at,
        grid.hour_at,
        {per_concept: max(cells.value) filter (where cells.concept = '{concept}') as {concept}_value,
        coalesce(max(cells.n_obs) filter (where cells.concept = '{concept}'), 0) as {concept}_n_obs,
        max(cells.hour_at) filter (where cells.concept = '{concept}') as {concept}_at}
    from grid left join cells on grid.stay_id = cells.stay_id and grid.hour_at = cells.hour_at
    group by grid.stay_id, grid.start_at, grid.hour_at
),

carried as (
    select
        stay_id,
        date_diff('hour', start_at, hour_at) as hour,
        {per_concept: {concept}_n_obs,
        last_value({concept}_value ignore nulls) over stay as {concept}_value,
        date_diff('hour', last_value({concept}_at ignore nulls) over stay, hour_at) as {concept}_age_h}
    from together
    window stay as (partition by stay_id order by hour_at rows between unbounded preceding and current row)
)

select
    stay_id,
    hour,
    {per_concept: {concept}_n_obs,
    case when {concept}_age_h <= {carry_h} then {concept}_value end as {concept}_value,
    case when {concept}_age_h <= {carry_h} then {concept}_age_h end as {concept}_age_h}
from carried
