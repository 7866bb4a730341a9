-- One row an ICU stay: how many hours its grid has, and where in the grid it begins.
with hours as (
    select
        clocks.clock_no,
        -- a stay that still runs has rows up to the last thing that is known of it
        cast(least({{ var('longest_stay_h') }}, coalesce(
            {{ hour_ending_at_or_after('clocks.until_at', 'clocks.start_at') }} + 1, known.hours, 0
        )) as integer) as steps
    from {{ ref('clocks') }} as clocks
    left join (
        select
            clock_no,
            max(last_known_hour) + 1 as hours
        from {{ ref('hours') }}
        group by clock_no
    ) as known on clocks.clock_no = known.clock_no
    where clocks.kind = 'stay'
)

select
    clock_no,
    steps,
    cast(sum(steps) over (order by clock_no) - steps as bigint) as first_row
from hours
where steps > 0
