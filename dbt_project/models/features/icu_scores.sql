-- The worst of each organ in the 24 hours before each moment of icu_stays, by what was known then.
with readings as (
    select
        stays.hospital,
        stays.patient_id,
        stays.visit_id,
        stays.stay_id,
        stays.known_at,
        stays.after_h,
        readings.concept,
        readings.value,
        readings.event_at,
        -- a drug's rate holds until the next one is charted
        case
            when ends_with(readings.concept, '_rate') then lead(readings.event_at, 1, stays.known_at) over (
                partition by stays.hospital, stays.patient_id, stays.stay_id, stays.known_at, readings.concept
                order by readings.event_at, readings.available_at, readings.row_id
            )
            else readings.event_at
        end >= stays.known_at - interval 24 hours as is_recent
    {{ readings_known_by_moments() }}
    where
        readings.concept in (
            'pao2', 'fio2', 'mechanical_ventilation', 'platelets', 'bilirubin_total', 'mbp', 'mbp_arterial',
            'norepinephrine_rate', 'epinephrine_rate', 'dopamine_rate', 'dobutamine_rate',
            'gcs_total', 'gcs_eye', 'gcs_verbal', 'gcs_motor', 'creatinine', 'urine_output'
        )
),

oxygens as (
    select * from readings
    where concept = 'fio2'
),

ventilations as (
    select * from readings
    where concept = 'mechanical_ventilation'
),

-- a gas counts with the oxygen of up to 12 hours before it, and as ventilated if that was charted up to 8 hours before
gases as (
    select
        gas.hospital,
        gas.stay_id,
        gas.known_at,
        min(100 * gas.value / oxygen.value) as ratio,
        min(100 * gas.value / oxygen.value) filter (
            where ventilation.value = 1 and ventilation.event_at >= gas.event_at - interval 8 hours
        ) as ventilated_ratio
    from readings as gas
    asof inner join oxygens as oxygen
        on
            gas.hospital = oxygen.hospital
            and gas.stay_id = oxygen.stay_id
            and gas.known_at = oxygen.known_at
            and gas.event_at >= oxygen.event_at
    asof left join ventilations as ventilation
        on
            gas.hospital = ventilation.hospital
            and gas.stay_id = ventilation.stay_id
            and gas.known_at = ventilation.known_at
            and gas.event_at >= ventilation.event_at
    where gas.concept = 'pao2' and gas.is_recent and oxygen.event_at >= gas.event_at - interval 12 hours
    group by all
),

-- the parts of the coma scale are a total where all three were charted at one time
totals as (
    select
        hospital,
        stay_id,
        known_at,
        coalesce(
            min(value) filter (where concept = 'gcs_total'),
            min(value) filter (where concept = 'gcs_eye')
            + min(value) filter (where concept = 'gcs_verbal')
            + min(value) filter (where concept = 'gcs_motor')
        ) as gcs
    from readings
    where is_recent and starts_with(concept, 'gcs_')
    group by hospital, stay_id, known_at, event_at
),

comas as (
    select
        hospital,
        stay_id,
        known_at,
        min(gcs) as gcs
    from totals
    group by all
),

worst as (
    select
        hospital,
        patient_id,
        visit_id,
        stay_id,
        known_at,
        after_h,
        {%- for concept in ['platelets', 'mbp', 'mbp_arterial'] %}
            min(value) filter (where concept = '{{ concept }}' and is_recent) as {{ concept }},
        {%- endfor %}
        {%- for concept in [
            'bilirubin_total', 'creatinine', 'norepinephrine_rate', 'epinephrine_rate', 'dopamine_rate', 'dobutamine_rate'
        ] %}
            max(value) filter (where concept = '{{ concept }}' and is_recent) as {{ concept }},
        {%- endfor %}
        -- a day's urine is known where its charting began at least 22 hours ago
        case
            when min(event_at) filter (where concept = 'urine_output') <= known_at - interval 22 hours
                then sum(value) filter (where concept = 'urine_output' and is_recent)
        end as urine_ml
    from readings
    group by hospital, patient_id, visit_id, stay_id, known_at, after_h
),

points as (
    select
        worst.hospital,
        worst.patient_id,
        worst.visit_id,
        worst.stay_id,
        worst.known_at,
        worst.after_h,
        greatest(
            {{ points_below('gases.ventilated_ratio', [[100, 4], [200, 3], [300, 2], [400, 1]]) }},
            {{ points_below('gases.ratio', [[300, 2], [400, 1]]) }}
        ) as respiration,
        {{ points_below('worst.platelets', [[20, 4], [50, 3], [100, 2], [150, 1]]) }} as coagulation,
        {{ points_from('worst.bilirubin_total', [[12, 4], [6, 3], [2, 2], [1.2, 1]]) }} as liver,
        case
            when worst.dopamine_rate > 15 or worst.epinephrine_rate > 0.1 or worst.norepinephrine_rate > 0.1 then 4
            when worst.dopamine_rate > 5 or worst.epinephrine_rate > 0 or worst.norepinephrine_rate > 0 then 3
            when worst.dopamine_rate > 0 or worst.dobutamine_rate > 0 then 2
            else {{ points_below('least(worst.mbp, worst.mbp_arterial)', [[70, 1]]) }}
        end as cardiovascular,
        {{ points_below('comas.gcs', [[6, 4], [10, 3], [13, 2], [15, 1]]) }} as nervous_system,
        greatest(
            {{ points_from('worst.creatinine', [[5, 4], [3.5, 3], [2, 2], [1.2, 1]]) }},
            {{ points_below('worst.urine_ml', [[200, 4], [500, 3]]) }}
        ) as renal
    from worst
    left join gases
        on
            worst.hospital = gases.hospital
            and worst.stay_id = gases.stay_id
            and worst.known_at = gases.known_at
    left join comas
        on
            worst.hospital = comas.hospital
            and worst.stay_id = comas.stay_id
            and worst.known_at = comas.known_at
)
{% set organs = ['respiration', 'coagulation', 'liver', 'cardiovascular', 'nervous_system', 'renal'] %}
select
    hospital,
    patient_id,
    visit_id,
    stay_id,
    known_at,
    after_h,
    {% for organ in organs %}
        cast({{ organ }} as integer) as sofa_{{ organ }},
    {% endfor %}
    cast(
        {%- for organ in organs %}
            cast({{ organ }} is not null as integer){{ ' +' if not loop.last }}
        {%- endfor %}
        as integer
    ) as sofa_organs,
    cast(
        {%- for organ in organs %}
            coalesce({{ organ }}, 0){{ ' +' if not loop.last }}
        {%- endfor %}
        as integer
    ) as sofa
from points
where coalesce({{ organs | join(', ') }}) is not null
