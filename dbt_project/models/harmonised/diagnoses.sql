-- Normalised only after the version is known: V and E codes exist in both systems. One row a target code.
with written as (
    select
        *,
        case
            when regexp_full_match(upper(code_system), '(ICD.?)?9.?(CM)?') then 'ICD9CM'
            when regexp_full_match(upper(code_system), '(ICD.?)?10.?(CM)?') then 'ICD10CM'
        end as system_known,
        replace(upper(trim(code)), '.', '') as code_plain
    from {{ source('input', 'diagnoses') }}
),

mapped as (
    select
        written.*,
        case
            when written.system_known = 'ICD10CM' then written.code_plain
            when written.system_known = 'ICD9CM' then gem.icd10
        end as target,
        case
            when written.code_system is null or upper(written.code_system) = 'ICD' then 'unknown_version'
            when written.system_known is null then 'other_system'
            when written.system_known = 'ICD10CM' and icd10.code is not null then 'native'
            when
                written.system_known = 'ICD10CM'
                and regexp_full_match(written.code_plain, '[A-TV-Z][0-9][0-9A-Z]([0-9A-Z]{0,4})|U[0-9]{2}[0-9A-Z]{0,4}')
                then 'obsolete'
            when written.system_known = 'ICD10CM' then 'malformed'
            when gem.targets > 1 then 'one_to_many'
            when gem.icd9 is not null and gem.icd10 is null then 'no_map'
            when gem.icd9 is not null and gem.approximate then 'approximate'
            when gem.icd9 is not null then 'exact'
            when regexp_full_match(written.code_plain, '[0-9]{3,5}|V[0-9]{2,4}|E[0-9]{3,4}') then 'obsolete'
            else 'malformed'
        end as mapping,
        coalesce(gem.mapping_rank, 1) as mapping_rank,
        coalesce(gem.weight, 1) as weight,
        gem.approximate,
        gem.combination,
        gem.scenario,
        gem.choice_list,
        gem.gem_edition
    from written
    left join {{ source('dictionary', 'icd9_gem') }} as gem
        on written.code_plain = gem.icd9 and written.system_known = 'ICD9CM'
    left join {{ source('dictionary', 'icd10_codes') }} as icd10
        on written.code_plain = icd10.code and written.system_known = 'ICD10CM'
)

select
    mapped.hospital,
    mapped.patient_id,
    mapped.visit_id,
    mapped.code as code_raw,
    mapped.code_system as system_raw,
    case when mapped.mapping <> 'malformed' then mapped.target end as code,
    mapped.mapping,
    cast(mapped.mapping_rank as integer) as mapping_rank,
    cast(mapped.weight as double) as weight,
    mapped.approximate,
    mapped.combination,
    mapped.scenario,
    mapped.choice_list,
    mapped.gem_edition,
    left(case when mapped.mapping <> 'malformed' then mapped.target end, 3) as category,
    icd10.ccsr,
    icd10.title,
    coalesce(icd9.title, icd10.title) as title_raw,
    mapped.event_at,
    {{ known_at('mapped.available_at', 'mapped.event_at') }} as available_at,
    mapped.rank,
    mapped.row_id
from mapped
left join {{ source('dictionary', 'icd10_codes') }} as icd10 on mapped.target = icd10.code
left join {{ source('dictionary', 'icd9_titles') }} as icd9
    on mapped.code_plain = icd9.code and mapped.system_known = 'ICD9CM'
