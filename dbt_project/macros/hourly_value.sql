{#- The values of one hour as one, by the concept's aggregate. Sums and means are rounded at the tenth decimal, where
    the order in which threads add would otherwise show. -#}
{% macro hourly_value() -%}
    coalesce(
        median(value) filter (where aggregate = 'median'),
        round(avg(value) filter (where aggregate = 'mean'), 10),
        round(sum(value) filter (where aggregate = 'sum'), 10),
        min(value) filter (where aggregate = 'min'),
        max(value) filter (where aggregate = 'max'),
        (max({'at': event_at, 'row_id': row_id, 'value': value}) filter (where aggregate = 'last')).value
    )
{%- endmacro %}
