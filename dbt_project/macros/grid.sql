{#- The models of a grid of dbt_project/grids/, one after the other. `clock` is stay or visit: from whose start steps are
    counted. `minutes` is the length of a step. -#}

{#- The usable measurements on the clocks of the grid. The ICU's hours are those that `readings` counts anyway. -#}
{% macro grid_readings(clock, minutes) -%}
{%- if (clock, minutes) == ('stay', 60) -%}
select
    clock_no,
    concept,
    aggregate,
    hour as step,
    known_hour as known_step,
    value,
    event_at,
    available_at,
    row_id
from {{ ref('readings') }}
{%- else -%}
with placed as (
    select
        readings.*,
        clocks.clock_no as grid_clock_no,
        {{ step_of('readings.event_at', 'clocks.start_at', minutes) }} as step,
        {{ step_ending_at_or_after('readings.available_at', 'clocks.start_at', minutes) }} as end_step
    from {{ ref('readings') }} as readings
    {%- if clock == 'stay' %}
    inner join {{ ref('clocks') }} as clocks on readings.clock_no = clocks.clock_no and clocks.kind = 'stay'
    {%- else %}
    inner join {{ ref('clocks') }} as own on readings.clock_no = own.clock_no
    inner join {{ ref('clocks') }} as clocks
        on
            clocks.kind = 'visit'
            and own.hospital = clocks.hospital
            and own.patient_id = clocks.patient_id
            and own.visit_id = clocks.visit_id
    {%- endif %}
)

-- what was known when the clock started enters at its first step
select
    grid_clock_no as clock_no,
    concept,
    aggregate,
    step,
    greatest(step, end_step, 0) as known_step,
    value,
    event_at,
    available_at,
    row_id
from placed
{%- endif -%}
{%- endmacro %}

{#- What each step amounts to. -#}
{% macro grid_steps(name, clock, minutes) -%}
{%- if (clock, minutes) == ('stay', 60) -%}
select
    clock_no,
    concept,
    hour as step,
    value,
    n_obs,
    first_known_hour as first_known_step,
    last_known_hour as last_known_step
from {{ ref('hours') }}
{%- else -%}
{{ amounts(ref(name ~ '_readings'), 'step') }}
{%- endif -%}
{%- endmacro %}

{#- One row a clock: how many steps its grid has, and where in the grid it begins. -#}
{% macro grid_clocks(name, clock, minutes) -%}
with lengths as (
    select
        clocks.clock_no,
        -- what still runs has rows up to the last thing that is known of it
        cast(least({{ var('longest_stay_h') * 60 // minutes }}, coalesce(
            {{ step_ending_at_or_after('clocks.until_at', 'clocks.start_at', minutes) }} + 1, known.steps, 0
        )) as integer) as steps
    from {{ ref('clocks') }} as clocks
    left join (
        select
            clock_no,
            max(last_known_step) + 1 as steps
        from {{ ref(name ~ '_steps') }}
        group by clock_no
    ) as known on clocks.clock_no = known.clock_no
    where clocks.kind = '{{ clock }}'
)

select
    clock_no,
    steps,
    cast(sum(steps) over (order by clock_no) - steps as bigint) as first_row
from lengths
where steps > 0
{%- endmacro %}

{#- What each step of the grid learns of a concept: one row a clock, concept and step at whose end something was new. -#}
{% macro grid_news(name, concepts) -%}
{%- set steps, readings, clocks = ref(name ~ '_steps'), ref(name ~ '_readings'), ref(name ~ '_clocks') -%}
with numbered as (
    select
        concept,
        cast(row_number() over (order by concept) - 1 as smallint) as concept_no
    from {{ ref('concepts') }}
    where concept in ('{{ concepts | join("', '") }}')
),

-- what a step of measurement amounts to, each time that more of it became known
whole as (
    select steps.* from {{ steps }} as steps
    where
        exists (select 1 from {{ clocks }} as clocks where clocks.clock_no = steps.clock_no)
        and steps.concept in (select numbered.concept from numbered)
),

-- where nothing of a concept was late, each step is news as it stands
late as (
    select distinct
        clock_no,
        concept
    from whole
    where last_known_step > step
),

delayed as (
    select whole.* from whole
    inner join late on whole.clock_no = late.clock_no and whole.concept = late.concept
),

piecemeal as (
    select readings.* from {{ readings }} as readings
    inner join delayed
        on
            readings.clock_no = delayed.clock_no
            and readings.concept = delayed.concept
            and readings.step = delayed.step
            and delayed.first_known_step < delayed.last_known_step
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
    from delayed
    where first_known_step = last_known_step
    union all
    select
        moments.clock_no,
        moments.concept,
        moments.step,
        moments.known_step,
        {{ value_of_step() }} as value,
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

news as (
    select * from heard
    union all
    select
        clock_no,
        concept,
        step as known_step,
        value,
        n_obs,
        step as measured_step
    from whole
    where not exists (
        select 1 from late
        where late.clock_no = whole.clock_no and late.concept = whole.concept
    )
)

select
    numbered.concept_no,
    cast(clocks.first_row + news.known_step as bigint) as place,
    cast(news.value as double) as value,
    cast(news.n_obs as integer) as n_obs,
    cast(news.measured_step as integer) as measured_step
from news
inner join {{ clocks }} as clocks on news.clock_no = clocks.clock_no and news.known_step < clocks.steps
inner join numbered on news.concept = numbered.concept
{%- endmacro %}

{#- One row a step with three columns a concept, as the model's contract lists them. -#}
{% macro grid_wide(name, clock, minutes) -%}
{%- set measured = measured_columns() -%}
select
    {{ grid_keys(clock, minutes, 'carried') }},
    {%- for column in measured %}
    carried.{{ column.concept }}_value as {{ column.name }},
    carried.{{ column.concept }}_n_obs,
    {{ age_in_hours('carried.' ~ column.concept ~ '_age', minutes) }} as {{ column.concept }}_age_h{{ ',' if not loop.last }}
    {%- endfor %}
from {{ ref(name ~ '_carried') }} as carried
{{ grid_origins(clock, minutes, 'carried') }}
{%- endmacro %}

{#- One row a step and concept that is known at its end. -#}
{% macro grid_long(name, clock, minutes) -%}
select
    {{ grid_keys(clock, minutes, 'known') }},
    concepts.concept,
    known.value,
    concepts.unit,
    known.n_obs,
    {{ age_in_hours('known.age', minutes) }} as age_h
from {{ ref(name ~ '_known') }} as known
inner join {{ ref('concepts') }} as concepts on known.concept = concepts.concept
{{ grid_origins(clock, minutes, 'known') }}
{%- endmacro %}

{% macro age_in_hours(age, minutes) -%}
    {%- if minutes == 60 -%} {{ age }}
    {%- elif minutes % 60 == 0 -%} {{ age }} * {{ minutes // 60 }}
    {%- else -%} cast({{ age }} * {{ minutes }} / 60 as double)
    {%- endif -%}
{%- endmacro %}

{% macro grid_keys(clock, minutes, steps) -%}
    clocks.hospital,
    clocks.patient_id,
    clocks.visit_id,
    {%- if clock == 'stay' %}
    clocks.stay_id,
    {%- endif %}
    {{ steps }}.step{{ ' as hour' if minutes == 60 }},
    clocks.start_at + to_minutes(({{ steps }}.step + 1) * {{ minutes }}) as known_at
    {%- if clock == 'visit' %},
    icu.clock_no is not null as in_icu
    {%- endif %}
{%- endmacro %}

{#- Where a row's step belongs. ICU stays of a patient do not overlap, so at most one holds the end of a step. -#}
{% macro grid_origins(clock, minutes, steps) -%}
inner join {{ ref('clocks') }} as clocks on {{ steps }}.clock_no = clocks.clock_no
{%- if clock == 'visit' %}
left join {{ ref('clocks') }} as icu
    on
        icu.kind = 'stay'
        and clocks.hospital = icu.hospital
        and clocks.patient_id = icu.patient_id
        and clocks.start_at + to_minutes(({{ steps }}.step + 1) * {{ minutes }}) > icu.start_at
        and (icu.until_at is null or clocks.start_at + to_minutes(({{ steps }}.step + 1) * {{ minutes }}) <= icu.until_at)
{%- endif %}
{%- endmacro %}
