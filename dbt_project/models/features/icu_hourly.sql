{{ config(materialized="view") }}
{#- One group of three columns a concept; icu_hourly.yml lists them and is made from seeds/concepts.csv. -#}
{%- set measured = measured_columns() -%}
select
    clocks.hospital,
    clocks.patient_id,
    clocks.visit_id,
    clocks.stay_id,
    carried.step as hour,
    clocks.start_at + to_hours(carried.step + 1) as known_at,
    {% for column in measured %}
        carried.{{ column.concept }}_value as {{ column.name }},
        carried.{{ column.concept }}_n_obs,
        carried.{{ column.concept }}_age as {{ column.concept }}_age_h{{ ',' if not loop.last }}
    {% endfor %}
from {{ ref('icu_carried') }} as carried
inner join {{ ref('clocks') }} as clocks on carried.clock_no = clocks.clock_no
