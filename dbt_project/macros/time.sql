{#- When a fact was known: never before it happened. -#}
{% macro known_at(available_at, event_at) -%}
    greatest(coalesce({{ available_at }}, {{ event_at }}), {{ event_at }})
{%- endmacro %}

{#- Whole steps from the start of a clock to a time; negative before it. -#}
{% macro step_of(time, start_at, minutes=60) -%}
    cast(floor((epoch_us({{ time }}) - epoch_us({{ start_at }})) / {{ minutes * 60000000 }}) as integer)
{%- endmacro %}

{#- The step at whose end a time has passed: exactly at the end of a step belongs to it. -#}
{% macro step_ending_at_or_after(time, start_at, minutes=60) -%}
    cast(ceil((epoch_us({{ time }}) - epoch_us({{ start_at }})) / {{ minutes * 60000000 }}) as integer) - 1
{%- endmacro %}
