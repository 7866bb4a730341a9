{#- Readings as `readings`, by the moments of icu_stays as `stays`: of the stay, and known by the moment. -#}
{% macro readings_known_by_moments() -%}
    from {{ ref('readings') }} as readings
    inner join {{ ref('clocks') }} as clocks on readings.clock_no = clocks.clock_no
    inner join {{ ref('icu_stays') }} as stays
        on
            clocks.hospital = stays.hospital
            and clocks.patient_id = stays.patient_id
            and readings.event_at >= stays.start_at
            and readings.available_at <= stays.known_at
{%- endmacro %}
