{#- One group of three columns a concept; icu_hourly.yml lists them and is made from seeds/concepts.csv. -#}
{%- set measured = measured_columns() -%}
{%- set names = "'" ~ measured | map(attribute='concept') | join("', '") ~ "'" -%}

with stays as (
    select
        clocks.*,
        -- a stay that still runs has rows up to the last thing that is known of it
        least({{ var('longest_stay_h') }}, coalesce(
            {{ hour_ending_at_or_after('clocks.until_at', 'clocks.start_at') }} + 1, known.hours, 0
        )) as hours
    from {{ ref('clocks') }} as clocks
    left join (
        select
            clock_no,
            max(last_known_hour) + 1 as hours
        from {{ ref('hours') }}
        group by clock_no
    ) as known on clocks.clock_no = known.clock_no
    where clocks.kind = 'stay'
),

grid as (
    select
        clock_no,
        unnest(range(0, hours)) as hour
    from stays
),

-- what an hour of measurement amounts to, each time that more of it became known
whole as (
    select hours.* from {{ ref('hours') }} as hours
    inner join stays on hours.clock_no = stays.clock_no
),

piecemeal as (
    select readings.* from {{ ref('readings') }} as readings
    inner join whole
        on
            readings.clock_no = whole.clock_no
            and readings.concept = whole.concept
            and readings.hour = whole.hour
            and whole.first_known_hour < whole.last_known_hour
),

moments as (
    select distinct
        clock_no,
        concept,
        hour,
        known_hour
    from piecemeal
),

steps as (
    select
        clock_no,
        concept,
        hour,
        last_known_hour as known_hour,
        value,
        n_obs
    from whole
    where first_known_hour = last_known_hour
    union all
    select
        moments.clock_no,
        moments.concept,
        moments.hour,
        moments.known_hour,
        {{ hourly_value() }} as value,
        cast(count(*) as integer) as n_obs
    from moments
    inner join piecemeal
        on
            moments.clock_no = piecemeal.clock_no
            and moments.concept = piecemeal.concept
            and moments.hour = piecemeal.hour
            and moments.known_hour >= piecemeal.known_hour
    group by all
),

-- of several hours heard of at once the newest counts, and what is older than the news so far is none
news as (
    select
        clock_no,
        known_hour as hour,
        concept,
        arg_max(value, hour) as value,
        arg_max(n_obs, hour) filter (where hour = known_hour) as n_obs,
        max(hour) as measured_hour
    from steps
    group by clock_no, concept, known_hour
    qualify max(hour) >= max(max(hour)) over (
        partition by clock_no, concept order by known_hour rows between unbounded preceding and current row
    )
),

wide as (
    pivot news
    on concept in ({{ names }})
    using first(value) as value, first(n_obs) as n_obs, first(measured_hour) as measured_hour
    group by clock_no, hour
),

carried as (
    select
        grid.clock_no,
        grid.hour,
        {% for column in measured %}
            last_value(wide.{{ column.concept }}_value ignore nulls) over stay as {{ column.concept }}_value,
            wide.{{ column.concept }}_n_obs,
            grid.hour - last_value(wide.{{ column.concept }}_measured_hour ignore nulls) over stay
                as {{ column.concept }}_age_h{{ ',' if not loop.last }}
        {% endfor %}
    from grid
    left join wide on grid.clock_no = wide.clock_no and grid.hour = wide.hour
    window stay as (partition by grid.clock_no order by grid.hour rows between unbounded preceding and current row)
),

limits as (
    select
        {% for column in measured %}
            max(carry_h) filter (where concept = '{{ column.concept }}')
                as {{ column.concept }}_carry_h{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('concepts') }}
)

select
    stays.hospital,
    stays.patient_id,
    stays.visit_id,
    stays.stay_id,
    cast(carried.hour as integer) as hour,
    stays.start_at + to_hours(carried.hour + 1) as known_at,
    {% for column in measured %}
        {% set age = 'carried.' ~ column.concept ~ '_age_h' %}
        {% set usable = age ~ ' <= limits.' ~ column.concept ~ '_carry_h' %}
        case when {{ usable }} then carried.{{ column.concept }}_value end as {{ column.name }},
        coalesce(carried.{{ column.concept }}_n_obs, 0) as {{ column.concept }}_n_obs,
        case when {{ usable }} then cast({{ age }} as integer) end
            as {{ column.concept }}_age_h{{ ',' if not loop.last }}
    {% endfor %}
from carried
inner join stays on carried.clock_no = stays.clock_no
cross join limits
