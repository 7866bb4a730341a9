{#- Points of the first bound that a value lies below, or reaches: [bound, points], the worst first. -#}
{% macro points_below(value, bounds) -%}
    case {% for bound, points in bounds %}when {{ value }} < {{ bound }} then {{ points }} {% endfor %}
        when {{ value }} is not null then 0 end
{%- endmacro %}

{% macro points_from(value, bounds) -%}
    case {% for bound, points in bounds %}when {{ value }} >= {{ bound }} then {{ points }} {% endfor %}
        when {{ value }} is not null then 0 end
{%- endmacro %}
