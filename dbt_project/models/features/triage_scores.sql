-- as_published: the step tables as coded in the MIMIC-IV-ED benchmark, where a value between two steps scores nothing;
-- corrected: the same tables on values rounded to the precision in which the tables are written.
with measured as (
    select
        *,
        sbp / 3 + 2 * dbp / 3 as mbp
    from {{ ref('triage') }}
),

rounded as (
    select * replace (
        {% for measure in ['heart_rate', 'respiratory_rate', 'spo2', 'sbp', 'dbp', 'mbp'] %}
            round({{ measure }}) as {{ measure }},
        {% endfor %}
        round(temperature, 1) as temperature
    )
    from measured
)

{% for variant, relation in [('as_published', 'measured'), ('corrected', 'rounded')] %}
    {%- set tables = triage_tables(variant) %}
    select
        hospital,
        patient_id,
        visit_id,
        stay_id,
        arrived_at as known_at,
        '{{ variant }}' as variant,
        age,
        cast(triage_acuity as integer) as triage_acuity,
        {% for score, measures in tables.items() %}
            cast(
                {% for measure, ranges in measures.items() %}
                    {{ points(measure, ranges) }}{{ ' +' if not loop.last }}
                {% endfor %}
                as integer
            ) as {{ score }},
        {% endfor %}
        {% if variant == 'as_published' %}
            -- so called there: NEWS without oxygen saturation; the real one scores oxygen given and consciousness too
            cast(news - {{ points('spo2', tables.news.spo2) }} as integer) as news2
        {% else %}
            cast(null as integer) as news2
        {% endif %}
    from {{ relation }}
    {{ 'union all' if not loop.last }}
{% endfor %}
