{#- What each step of a grid learns of a concept: one row a clock, concept and step at whose end something was new.
    `steps`: clock_no, concept, step, value, n_obs, first_known_step, last_known_step; one row a step of measurement.
    `readings`: clock_no, concept, aggregate, step, known_step, value, event_at, row_id.
    `clocks`: clock_no, steps, first_row. -#}
{% macro news(steps, readings, clocks) -%}
-- what a step of measurement amounts to, each time that more of it became known
with whole as (
    select steps.* from {{ steps }} as steps
    where exists (select 1 from {{ clocks }} as clocks where clocks.clock_no = steps.clock_no)
),

piecemeal as (
    select readings.* from {{ readings }} as readings
    inner join whole
        on
            readings.clock_no = whole.clock_no
            and readings.concept = whole.concept
            and readings.step = whole.step
            and whole.first_known_step < whole.last_known_step
),

moments as (
    select distinct
        clock_no,
        concept,
        step,
        known_step
    from piecemeal
),

amounts as (
    select
        clock_no,
        concept,
        step,
        last_known_step as known_step,
        value,
        n_obs
    from whole
    where first_known_step = last_known_step
    union all
    select
        moments.clock_no,
        moments.concept,
        moments.step,
        moments.known_step,
        {{ hourly_value() }} as value,
        cast(count(*) as integer) as n_obs
    from moments
    inner join piecemeal
        on
            moments.clock_no = piecemeal.clock_no
            and moments.concept = piecemeal.concept
            and moments.step = piecemeal.step
            and moments.known_step >= piecemeal.known_step
    group by all
),

-- of several steps heard of at once the newest counts, and what is older than the news so far is none
heard as (
    select
        clock_no,
        concept,
        known_step,
        arg_max(value, step) as value,
        arg_max(n_obs, step) filter (where step = known_step) as n_obs,
        max(step) as measured_step
    from amounts
    group by clock_no, concept, known_step
    qualify max(step) >= max(max(step)) over (
        partition by clock_no, concept order by known_step rows between unbounded preceding and current row
    )
),

numbered as (
    select
        concept,
        cast(row_number() over (order by concept) - 1 as smallint) as concept_no
    from {{ ref('concepts') }}
)

select
    numbered.concept_no,
    cast(clocks.first_row + heard.known_step as bigint) as place,
    cast(heard.value as double) as value,
    cast(heard.n_obs as integer) as n_obs,
    cast(heard.measured_step as integer) as measured_step
from heard
inner join {{ clocks }} as clocks on heard.clock_no = clocks.clock_no and heard.known_step < clocks.steps
inner join numbered on heard.concept = numbered.concept
{%- endmacro %}
