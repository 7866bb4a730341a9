-- One row a clock, concept and hour of measurement: what the hour amounts to once all of it was known. One aggregate at
-- a time, so that a group holds the state of one and not of all.
{%- for name, expression in aggregates().items() %}
    select
        clock_no,
        concept,
        hour,
        {{ expression }} as value,
        cast(count(*) as integer) as n_obs,
        min(known_hour) as first_known_hour,
        max(known_hour) as last_known_hour
    from {{ ref('readings') }}
    where aggregate = '{{ name }}'
    group by clock_no, concept, hour
    {{ 'union all' if not loop.last }}
{%- endfor %}
