{#- The columns of the model's contract that say which concept they hold: a list of {name, concept, statistic}. -#}
{% macro measured_columns() -%}
    {%- set found = [] -%}
    {%- for column in model.columns.values() if column.meta.concept is defined -%}
        {%- do found.append({'name': column.name, 'concept': column.meta.concept, 'statistic': column.meta.statistic}) -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}
