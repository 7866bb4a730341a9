{#- How the values of one step become one, by the name of the concept's aggregate. Sums and means are rounded at the tenth
    decimal, where the order in which threads add would otherwise show. -#}
{% macro aggregates() -%}
    {{ return({
        'median': 'median(value)',
        'mean': 'round(avg(value), 10)',
        'sum': 'round(sum(value), 10)',
        'min': 'min(value)',
        'max': 'max(value)',
        'last': "max({'at': event_at, 'row_id': row_id, 'value': value}).value"
    }) }}
{%- endmacro %}

{#- The values of one step as one, where the rows carry the name of their concept's aggregate. -#}
{% macro value_of_step() -%}
    case any_value(aggregate)
        {%- for name, expression in aggregates().items() %}
            when '{{ name }}' then {{ expression }}
        {%- endfor %}
    end
{%- endmacro %}

{#- One row a clock, concept and step of measurement: what the step amounts to once all of it was known. One aggregate at
    a time, so that a group holds the state of one and not of all. -#}
{% macro amounts(readings, step) -%}
{%- for name, expression in aggregates().items() %}
    select
        clock_no,
        concept,
        {{ step }},
        {{ expression }} as value,
        cast(count(*) as integer) as n_obs,
        min(known_{{ step }}) as first_known_{{ step }},
        max(known_{{ step }}) as last_known_{{ step }}
    from {{ readings }}
    where aggregate = '{{ name }}'
    group by clock_no, concept, {{ step }}
    {{ 'union all' if not loop.last }}
{%- endfor %}
{%- endmacro %}
