{#- When a fact was known: never before it happened. -#}
{% macro known_at(available_at, event_at) -%}
    greatest(coalesce({{ available_at }}, {{ event_at }}), {{ event_at }})
{%- endmacro %}

{#- Whole hours from the start of a clock to a time; negative before it. -#}
{% macro hour_of(time, start_at) -%}
    cast(floor((epoch_us({{ time }}) - epoch_us({{ start_at }})) / 3600000000) as integer)
{%- endmacro %}

{#- The hour at whose end a time has passed: exactly on the hour belongs to the hour that ends there. -#}
{% macro hour_ending_at_or_after(time, start_at) -%}
    cast(ceil((epoch_us({{ time }}) - epoch_us({{ start_at }})) / 3600000000) as integer) - 1
{%- endmacro %}
