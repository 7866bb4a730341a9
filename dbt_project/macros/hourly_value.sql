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
{% macro hourly_value() -%}
    case any_value(aggregate)
        {%- for name, expression in aggregates().items() %}
            when '{{ name }}' then {{ expression }}
        {%- endfor %}
    end
{%- endmacro %}
