{#- The number of a reading; of a censored result such as '<0.1' its limit. -#}
{% macro number_written() -%}
    coalesce(
        case when isfinite(value_number) then value_number end,
        case when value_text like '%<%' or value_text like '%>%' then {{ censored_number('value_text') }} end
    )
{%- endmacro %}

{#- A number in the unit of its concept, by what `meanings` says of its item and unit. The noise of floating point lies
    beyond the tenth decimal. -#}
{% macro converted(number) -%}
    round(case
        when {{ number }} between meanings.rescue_low and meanings.rescue_high
            then {{ number }} * meanings.rescue_factor + meanings.rescue_shift
        else {{ number }} * meanings.factor + meanings.shift
    end, 10)
{%- endmacro %}

{#- One number for all that makes a reading the same reading. -#}
{% macro reading_hash() -%}
    hash(hospital, patient_id, source_table, code, event_at, value_text, value_number, unit)
{%- endmacro %}
